"""Entity tags: what somebody has seen, so that nobody overwrites what he has not (RFC 9110, sections 8.8.3 and 13.1)."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from admin.errors import BadRequest, PreconditionFailed, PreconditionRequired

ANY: Final = "*"
MAX_TAGS: Final = 16
_TAGS: Final = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]{0,256}"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]{0,256}"\s*)*')
_TAG: Final = re.compile(r'(W/)?("[^"]*")')


def version_tag(version: int, content_hash: str) -> str:
    """Of a configuration: its number, and enough of its content's hash to tell another store's version of that number."""
    return f'"{version}-{content_hash[:16]}"'


def tag_of(*parts: object) -> str:
    """Of anything else: a digest of what it consists of."""
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"'


def check_match(header: str | None, current: str | None) -> None:
    """Let a change pass that names what is there; ``current`` is None where there is nothing.

    Raises `PreconditionRequired`, `PreconditionFailed`, `BadRequest`.
    """
    if header is None:
        raise PreconditionRequired(
            "this change needs If-Match with the ETag of what it replaces, as the last GET gave it"
        )
    if header.strip() == ANY:
        if current is None:
            raise PreconditionFailed("there is nothing to replace")
        return
    # Strong comparison: a weak tag never matches (RFC 9110, section 13.1.1).
    strong = [tag for weak, tag in _tags(header, "If-Match") if not weak]
    if current not in strong:
        raise PreconditionFailed(
            f"it is {current} by now: look at it again"
            if current is not None
            else "there is nothing to replace"
        )


def is_known(header: str | None, current: str) -> bool:
    """Whether who asks with ``If-None-Match`` has this already. Raises `BadRequest`."""
    if header is None:
        return False
    return header.strip() == ANY or any(tag == current for _, tag in _tags(header, "If-None-Match"))


def _tags(header: str, name: str) -> list[tuple[bool, str]]:
    if not _TAGS.fullmatch(header) or header.count('"') > 2 * MAX_TAGS:
        raise BadRequest(f'{name} has to be * or up to {MAX_TAGS} entity tags, as in "3-5f0c9d12ab34cd56"')
    return [(bool(weak), tag) for weak, tag in _TAG.findall(header)]


def version_of(tag: str) -> int | None:
    """The number of the version that a tag of `version_tag` is of; None where it is none."""
    number = tag.strip('"').partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() else None
