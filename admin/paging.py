"""Pages of a list: a limit, and a cursor that says where the last one ended.

A cursor is the last item's key, as URL-safe base64. It grants nothing: whatever it says, only what the asker may see is listed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Generic, TypeVar

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from admin.errors import BadRequest

MAX_PAGE: Final = 100
MAX_CURSOR_CHARACTERS: Final = 512
MAX_NUMBER: Final = 2**53
"""The largest whole number that every JSON reader has exactly."""
ItemT = TypeVar("ItemT")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items on the page.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=MAX_CURSOR_CHARACTERS,
        description="``next_cursor`` of the page before; none: the first page.",
    ),
]


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """The items of a page, and the cursor of the next if there is one."""

    items: list[ItemT]
    next_cursor: str | None


def page_of(found: Sequence[ItemT], limit: int, cursors: Sequence[str]) -> Page[ItemT]:
    """A page of what was found for one item more than the limit; ``cursors`` has one for each."""
    more = len(found) > limit
    return Page(list(found[:limit]), cursors[limit - 1] if more else None)


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Say where the next page is (RFC 8288)."""
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'


def written(*parts: str) -> str:
    """A cursor."""
    return base64.urlsafe_b64encode("\n".join(parts).encode()).decode().rstrip("=")


def _read(cursor: str, parts: int) -> list[str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise _bad() from error
    found = text.split("\n")
    if len(found) != parts or (not text.isprintable() and parts == 1):
        raise _bad()
    return found


def text_of(cursor: str | None) -> str:
    """The key of the last item; empty before the first. Raises `BadRequest`."""
    return "" if cursor is None else _read(cursor, 1)[0]


def number_of(cursor: str | None) -> int | None:
    """The number of the last item. Raises `BadRequest`."""
    if cursor is None:
        return None
    text = text_of(cursor)
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or int(text) > MAX_NUMBER:
        raise _bad()
    return int(text)


def moment_of(cursor: str | None) -> tuple[datetime, str] | None:
    """The time and the id of the last item. Raises `BadRequest`."""
    if cursor is None:
        return None
    at, key = _read(cursor, 2)
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise _bad()
        return moment.astimezone(UTC), key
    except (ValueError, OverflowError) as error:
        # The second: a time that in UTC would be before the year 1 or after 9999.
        raise _bad() from error


def _bad() -> BadRequest:
    return BadRequest("cursor: not one that a page here gave")
