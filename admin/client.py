"""A client of the API, for the command line: over HTTP to a node that runs, or to the same application in this process.

A request that only reads, and one with an idempotency key, is repeated where the answer is 429 or 503, once it says when.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import httpx2

from admin.errors import AdminError
from admin.principals import Principal, Role
from admin.problems import MEDIA_TYPE

TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 3
MAX_WAIT_S: Final = 5.0
"""Longer than this no request waits for its repetition."""
READS: Final = "GET"
_WORTH_ANOTHER: Final = (429, 503)


class ApiUnreachable(AdminError):  # noqa: N818
    """The node does not answer, or what answers is no admin API."""

    status = 503
    kind = "unreachable"


@dataclass(frozen=True, slots=True)
class ApiFault:
    """One thing that was wrong with what was sent."""

    field: str
    reason: str


class ApiProblem(AdminError):  # noqa: N818
    """The API said no (RFC 9457)."""

    def __init__(self, status: int, kind: str, detail: str, faults: tuple[ApiFault, ...]) -> None:
        super().__init__(detail)
        self.answered = status
        self.said = kind
        self.faults = faults

    def __str__(self) -> str:
        lines = [
            super().__str__(),
            *(f"{each.field}: {each.reason}" if each.field else each.reason for each in self.faults),
        ]
        return "\n".join(lines)


class LocalOperator:
    """`admin.ports.Authenticator` of the application in the command line's own process: who runs it may open the store anyway."""

    def __init__(self, subject: str, user: str) -> None:
        """``subject``: whom versions and the trail name; ``user``: who runs the command, which the trail has beside."""
        self._principal = Principal(subject, Role.OPERATOR, None, credential=f"command line of {user}")

    async def authenticate(self, authorization: str | None, source: str) -> Principal:  # noqa: ARG002
        return self._principal


class AdminClient:
    """Requests as an asynchronous context; what it gives are JSON documents."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises `ApiUnreachable` for a URL that is none."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url = url
        try:
            self._http = httpx2.AsyncClient(
                base_url=url, headers=headers, timeout=TIMEOUT_S, transport=transport, trust_env=False
            )
        except httpx2.InvalidURL as error:
            raise ApiUnreachable(f"{url}: {error}") from error

    async def __aenter__(self) -> AdminClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        """What is at a path."""
        return (await self._asked("GET", path, query=query))[0]

    async def tagged(self, path: str) -> tuple[dict[str, Any], str]:
        """What is at a path, and its ETag."""
        return await self._asked("GET", path)

    async def change(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        match: str | None = None,
        yaml: bytes | None = None,
        secret: bool = False,
        **query: object,
    ) -> dict[str, Any]:
        """Change something, once, however often it has to be asked for.

        ``secret``: the body has a key, of which not even the digest is to be kept. Its method must be idempotent.
        """
        headers = {} if secret else {"Idempotency-Key": uuid.uuid4().hex}
        if match is not None:
            headers["If-Match"] = match
        if yaml is not None:
            headers["Content-Type"] = "application/yaml"
        return (await self._asked(method, path, headers=headers, body=body, yaml=yaml, query=query))[0]

    async def _asked(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        yaml: bytes | None = None,
        query: Mapping[str, object] | None = None,
    ) -> tuple[dict[str, Any], str]:
        params = {name: str(value) for name, value in (query or {}).items() if value is not None}
        left = ATTEMPTS
        while True:
            try:
                answer = await self._http.request(
                    method, path, headers=dict(headers or {}), params=params, json=body, content=yaml
                )
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise ApiUnreachable(f"{self._url}: {_why(error, method)}") from error
            left -= 1
            wait_s = _wait_s(answer)
            if wait_s is None or not left:
                break
            await asyncio.sleep(wait_s)
        return _document(answer, self._url), answer.headers.get("ETag", "")


def path_of(*parts: object) -> str:
    """A path of the API, with what is given quoted."""
    return "/v1/" + "/".join(quote(str(each), safe="") for each in parts)


def _why(error: Exception, method: str) -> str:
    """What happened; and of a change that had been sent, that it may have been made."""
    why = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return f"{why}: is the node running, with an admin section in its configuration, at this address?"
    sent = not isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL)
    return (
        f"{why}; whether it was done is not known: look before you try again"
        if sent and method != READS
        else why
    )


def _wait_s(answer: httpx2.Response) -> float | None:
    after = answer.headers.get("Retry-After", "")
    if answer.status_code not in _WORTH_ANOTHER or not after.isdigit() or int(after) > MAX_WAIT_S:
        return None
    return float(after)


def _document(answer: httpx2.Response, url: str) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    failed = answer.status_code >= 400
    ours = answer.headers.get("Content-Type", "").startswith(MEDIA_TYPE) if failed else answer.is_success
    if not ours or not isinstance(document, dict):
        raise ApiUnreachable(f"{url}: answered {answer.status_code}, and not as the admin API does")
    if failed:
        errors = document.get("errors")
        faults = tuple(
            ApiFault(str(each.get("field", "")), str(each.get("reason", "")))
            for each in (errors if isinstance(errors, list) else ())
            if isinstance(each, dict)
        )
        kind = str(document.get("type", "")).rpartition(":")[2]
        raise ApiProblem(answer.status_code, kind, str(document.get("detail", "")), faults)
    return document
