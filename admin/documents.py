"""What routes say of themselves in the published document."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from admin.guard import ANYBODY, OPERATORS, ROLE
from admin.problems import MEDIA_TYPE

_ALWAYS: Final = (400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 507)
_TEXTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        304: "What If-None-Match names is what is there",
        400: "The request cannot be read",
        401: "No token, or one that is nobody's",
        403: "The role may not do this",
        404: "There is none, or it is another tenant's",
        409: "What is there does not allow it",
        412: "What If-Match names is not what is there",
        413: "The body is too large",
        415: "The body is of another type",
        422: "What was sent cannot be used; errors has the fields",
        428: "If-Match is missing",
        429: "Too many requests; Retry-After says when",
        500: "The server's fault",
        503: "The store, the vault or an identity provider cannot be used now; nothing was changed",
        507: "The store has no room left; nothing was changed",
    }
)


def for_operators() -> dict[str, Any]:
    """Marks a route that tenants may not use."""
    return {ROLE: OPERATORS}


def for_anybody() -> dict[str, Any]:
    """Marks a route whose answer is the same for everybody who is known."""
    return {ROLE: ANYBODY}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that say what is wrong: those that every route may give, and its own."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*_ALWAYS, *statuses}):
        if status == 304:
            found[status] = {"description": _TEXTS[status]}
        else:
            # The document's own maker gives each its schema (`admin.app`).
            found[status] = {"description": _TEXTS[status], "content": {MEDIA_TYPE: {}}}
    return found
