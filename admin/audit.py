"""The admin API's audit trail: deeds in a chain of hashes, and a head beside it. Sans-IO.

The hash of an entry is SHA-256 over the hash of the entry before it (32 zero bytes before the first) and the entry's
canonical JSON: keys sorted, no spaces, UTF-8, its sequence and the deed's fields by their names. The head is the last entry's
sequence and hash, kept in a row of its own. It is the form of the vault's trail (`vault.audit`), without its seal: there is
no root key here.

What this shows: an entry that was changed, taken out, put in or moved, by whoever did not compute everything after it anew
as well; and entries cut off at the end, by whoever left the head.

What it does not show: a trail that was computed anew as a whole, or cut off together with its head, or put back to an earlier
state. Whoever can write the database and drops its triggers can do that. Against it, keep a head outside (it is no secret) and
give it to `Verifier` as ``anchor``; a process that runs has one of its own in memory.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from admin.ports import Deed, Entry
from admin.tokens import without_tokens

FIRST_HASH: Final = bytes(32)
TEXT_CHARACTERS_MAX: Final = 500
"""Of each field."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends; sequence 0 and `FIRST_HASH`: it is empty."""

    sequence: int
    hash: bytes


EMPTY: Final = Head(0, FIRST_HASH)


def normal(deed: Deed) -> Deed:
    """The deed as it is kept: its time in UTC, its texts within bounds, writable in every database, and without tokens.

    Raises `ValueError` for a time without a zone.
    """
    if deed.at.tzinfo is None:
        raise ValueError("a deed's time needs its zone")
    return Deed(
        at=deed.at.astimezone(UTC),
        principal=_text(deed.principal),
        credential=_text(deed.credential),
        source=_text(deed.source),
        action=_text(deed.action),
        tenant_id=None if deed.tenant_id is None else _text(deed.tenant_id),
        target=None if deed.target is None else _text(deed.target),
        status=deed.status,
        request_id=_text(deed.request_id),
        detail=_text(deed.detail),
    )


def chained(head: Head, deed: Deed) -> Entry:
    """The entry of a `normal` deed after this head."""
    sequence = head.sequence + 1
    return Entry(sequence, deed, entry_hash(head.hash, sequence, deed))


def entry_hash(previous: bytes, sequence: int, deed: Deed) -> bytes:
    """The hash of an entry after the one with the hash ``previous``."""
    fields = {**asdict(deed), "at": time_text(deed.at), "sequence": sequence}
    return hashlib.sha256(previous + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).digest()


def time_text(at: datetime) -> str:
    """A time as it is kept: RFC 3339, UTC, always with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


class Verifier:
    """Takes all entries in order, then the head; tells the first thing that is wrong.

    ``anchor`` is a head that was kept elsewhere: the trail must hold it and go on from it.
    """

    def __init__(self, anchor: Head = EMPTY) -> None:
        self._anchor = anchor
        self._at = EMPTY

    def take(self, entry: Entry) -> str | None:
        """The next entry; a finding ends the verification."""
        expected = self._at.sequence + 1
        if entry.sequence != expected:
            return f"entry {expected} is missing: {entry.sequence} comes in its place"
        made = entry_hash(self._at.hash, entry.sequence, entry.deed)
        if not hmac.compare_digest(made, entry.hash):
            return f"entry {expected} is not what was entered"
        if self._anchor.sequence == expected and self._anchor.hash != entry.hash:
            return f"entry {expected} is another than the head that was kept elsewhere says"
        self._at = Head(expected, entry.hash)
        return None

    def end(self, head: Head) -> str | None:
        """No more entries: whether they end where the head says, and as far as the anchor."""
        reached = self._at.sequence
        longest = max(head.sequence, self._anchor.sequence)
        if longest > reached:
            return f"entries {reached + 1} to {longest} are missing at the end"
        if head.sequence < reached:
            return f"entry {head.sequence + 1} comes after the head"
        return None if head.hash == self._at.hash else "the entries do not lead to the head"


def _text(text: str) -> str:
    # Cut first: what looks like a token is searched for in a bounded text. Postgres takes no NUL, and nobody half a surrogate pair.
    cut = text[: 4 * TEXT_CHARACTERS_MAX].encode("utf-8", "replace").decode().replace("\0", "?")
    return without_tokens(cut)[:TEXT_CHARACTERS_MAX]
