"""Around every request: its id, and a bound on what is read of it."""

from __future__ import annotations

import re
import uuid
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin.errors import TooLarge
from admin.problems import ProblemDetails

MAX_BODY_BYTES: Final = 1024 * 1024 + 65_536
"""A tenant's configuration may have a mebibyte; the rest is JSON around it."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")


class RequestBounds:
    """Gives each request an id, the client's own where it is well-formed, and answers 413 to what is too large."""

    def __init__(self, app: ASGIApp, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        text = f"a request's body has at most {self._max_body_bytes} bytes"
        length = headers.get(b"content-length", b"0")
        left = self._max_body_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge(text)
            return message

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        if not length.isdigit() or int(length[:12]) > self._max_body_bytes:
            response = ProblemDetails(TooLarge.status, TooLarge.kind, text).response(request_id)
            await response(scope, receive, named)
            return
        await self._app(scope, bounded, named)
