"""HTTP for callers in a browser: the softphone page, sessions, and the signalling of Pipecat's small-webrtc clients.

``POST /start`` gives a token; the offer carries it in its path (``/sessions/TOKEN/api/offer``, as Pipecat's clients do
after ``/start``) or as ``Authorization: Bearer TOKEN`` (``/api/offer``). Refusals are ``{"detail": text}``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from mediaserver.webrtc.edge import Answer, WebEdge
from mediaserver.webrtc.proxies import Network, source_behind
from mediaserver.webrtc.signalling import (
    MAX_BODY_BYTES,
    Candidates,
    Offer,
    StartRequest,
    WebRefusal,
    parse,
)

PAGE: Final = Path(__file__).parent / "page"
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/softphone.js": ("softphone.js", "text/javascript; charset=utf-8"),
    "/softphone.css": ("softphone.css", "text/css; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
ALLOWED_METHODS: Final = "POST, PATCH"
ALLOWED_HEADERS: Final = "Authorization, Content-Type"
PREFLIGHT_MAX_AGE_S: Final = 600
MAX_LISTED_NUMBERS: Final = 200

_Work = Callable[[Request], Awaitable[dict[str, object]]]
_Endpoint = Callable[[Request], Awaitable[Response]]
EdgeSource = Callable[[], WebEdge | None]
"""The edge, once the node has one."""
NumberSource = Callable[[], Mapping[str, str]]
"""What can be called: business names by number."""


def web_routes(
    edge: EdgeSource,
    numbers: NumberSource,
    allowed_origins: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
) -> APIRouter:
    """The routes of the web edge."""
    router = APIRouter()
    _add_page(router)
    door = _Door(edge, frozenset(allowed_origins), tuple(map(ip_network, trusted_proxies)))

    @router.get("/api/numbers")
    async def listed() -> list[dict[str, str]]:
        """What the page offers to call."""
        return [
            {"number": number, "business_name": name}
            for number, name in list(numbers().items())[:MAX_LISTED_NUMBERS]
        ]

    async def start(request: Request) -> dict[str, object]:
        body = parse(StartRequest, await _body(request))
        if body.site_key is None:
            door.check_origin(request)
        else:
            door.let_page_read(request)  # Why its key is refused, too.
        origin = request.headers.get("origin")
        return {"sessionId": await door.edge.start(body, door.source(request), origin)}

    async def offer(request: Request) -> dict[str, object]:
        token = door.session(request)
        answer: Answer = await door.edge.offer(
            token, parse(Offer, await _body(request)), door.source(request)
        )
        return {"sdp": answer.sdp, "type": "answer", "pc_id": answer.pc_id}

    async def candidates(request: Request) -> dict[str, object]:
        token = door.session(request)
        door.edge.candidates(token, parse(Candidates, await _body(request)))
        return {"status": "success"}

    for path, work, method in (
        ("/start", start, "POST"),
        ("/api/offer", offer, "POST"),
        ("/api/offer", candidates, "PATCH"),
        ("/sessions/{token}/api/offer", offer, "POST"),
        ("/sessions/{token}/api/offer", candidates, "PATCH"),
    ):
        router.add_api_route(path, door.guard(work), methods=[method], response_model=None)
    for path in ("/start", "/api/offer", "/sessions/{token}/api/offer"):
        router.add_api_route(path, door.preflight, methods=["OPTIONS"], response_model=None)
    return router


def _add_page(router: APIRouter) -> None:
    def serve(name: str, media_type: str) -> Callable[[], FileResponse]:
        return lambda: FileResponse(PAGE / name, media_type=media_type, headers=PAGE_HEADERS)

    for path, (name, media_type) in FILES.items():
        router.add_api_route(path, serve(name, media_type), methods=["GET"], include_in_schema=False)


class _Door:
    """Who may come in: this server's pages, those that the operator allows, tenants' with their site key; programs.

    Programs send no origin.
    """

    def __init__(
        self, edge: EdgeSource, allowed_origins: frozenset[str], trusted_proxies: tuple[Network, ...]
    ) -> None:
        self._edge = edge
        self._allowed_origins = allowed_origins
        self._trusted_proxies = trusted_proxies

    @property
    def edge(self) -> WebEdge:
        edge = self._edge()
        if edge is None:
            raise WebRefusal(503, "the server is starting or stopping", retry_after_s=5)
        return edge

    def source(self, request: Request) -> str:
        """The address that a request is from."""
        peer = request.client.host if request.client is not None else "unknown"
        return source_behind(peer, request.headers.getlist("x-forwarded-for"), self._trusted_proxies)

    def guard(self, work: _Work) -> _Endpoint:
        """The endpoint around ``work``: refusals become responses, and an allowed origin may read them."""

        async def endpoint(request: Request) -> Response:
            try:
                response = JSONResponse(await work(request))
            except WebRefusal as refusal:
                if (edge := self._edge()) is not None:
                    edge.refusals[refusal.status] += 1
                response = JSONResponse({"detail": refusal.text}, refusal.status)
                if refusal.retry_after_s is not None:
                    response.headers["Retry-After"] = str(refusal.retry_after_s)
                if refusal.location is not None:
                    response.headers["Location"] = refusal.location + request.url.path
                if refusal.status == 401:
                    response.headers["WWW-Authenticate"] = "Bearer"
            response.headers["Cache-Control"] = "no-store"
            self._let_read(request, response)
            return response

        return endpoint

    async def preflight(self, request: Request) -> Response:
        """Answer a browser that asks before it sends a request of another origin (Fetch 4.8).

        Any page may send its request: whether its key admits it is seen when that is there. A page whose request is refused
        cannot do more with this than it could with a form.
        """
        response = Response(status_code=204)
        self.let_page_read(request)
        if self._let_read(request, response):
            response.headers["Access-Control-Allow-Methods"] = ALLOWED_METHODS
            response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_MAX_AGE_S)
        return response

    def session(self, request: Request) -> str:
        """The token of a request's session, which a site key's page alone may use, and other pages as `check_origin` says."""
        token = _token(request)
        origin = self.edge.origin_of(token)
        if origin is None:
            self.check_origin(request)
        elif origin == request.headers.get("origin"):
            self.let_page_read(request)
        else:
            raise WebRefusal(403, "the session is another page's")
        return token

    def let_page_read(self, request: Request) -> None:
        """Let the page that sent a request read the answer, whichever page it is."""
        request.state.readable = True

    def check_origin(self, request: Request) -> None:
        """Refuse a page that is neither of this server nor of `http.allowed_origins`. Raises `WebRefusal`."""
        origin = request.headers.get("origin")
        if origin is None or origin in self._allowed_origins:
            return
        # Behind a proxy that ends TLS the scheme is not ours to compare; the host is what the browser asked for.
        if urlsplit(origin).netloc != request.headers.get("host"):
            raise WebRefusal(403, "pages of this origin may not place calls here (http.allowed_origins)")

    def _let_read(self, request: Request, response: Response) -> bool:
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("origin")
        readable = getattr(request.state, "readable", False)
        if origin is None or not (readable or origin in self._allowed_origins):
            return False
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Retry-After, Location"
        return True


def _token(request: Request) -> str:
    """The session's token: from the path, or the bearer's (RFC 6750 2.1)."""
    token = request.path_params.get("token")
    if isinstance(token, str):
        return token
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credentials.strip():
        raise WebRefusal(
            401, "no session: POST /start gives a token, to be sent as 'Authorization: Bearer TOKEN'"
        )
    return credentials.strip()


async def _body(request: Request) -> bytes:
    """The body, read no further than it may be long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise WebRefusal(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)
