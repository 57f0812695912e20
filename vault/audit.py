"""The audit trail: entries in a chain of hashes, and a head that is sealed beside it. Sans-IO.

The hash of an entry is SHA-256 over the hash of the entry before it (32 zero bytes before the first) and the entry's
canonical JSON: keys sorted, no spaces, UTF-8. The head holds the last entry's number and hash and an HMAC-SHA-256 over
both (label "vault/audit-head" 0x00, number in 8 bytes), under a key derived by HKDF from the vault's root key. That key is
wrapped by the key-encryption key as data keys are, so that it works with a key service too and outlives rotations.

What this shows to whoever holds the key-encryption key: an entry that was changed, taken out, put in or moved; entries
cut off at the end; a chain that was computed anew; a head taken from elsewhere.

What it does not show: a file that was put back as a whole, head included, to an earlier state, or taken away as a whole.
Against that, keep a head outside (`Head` is no secret) and give it to `Verifier` as ``anchor``. Nor does it bind whoever
holds both the file and the key-encryption key: they can write any history.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import orjson

from vault.errors import AuditBroken
from vault.sealing import KeyMaterial

FIRST_HASH: Final = bytes(32)
_HEAD_LABEL: Final = b"vault/audit-head\x00"


class Action(StrEnum):
    """What was done."""

    PUT = "put"
    REVOKE = "revoke"
    DATA_KEY_ADDED = "data-key-added"
    RESEALED = "resealed"
    DATA_KEY_RETIRED = "data-key-retired"
    DATA_KEY_REWRAPPED = "data-key-rewrapped"


@dataclass(frozen=True, slots=True)
class Deed:
    """What is to be entered; never a secret."""

    at: str
    """RFC 3339, UTC."""
    actor: str
    action: Action
    tenant_id: str
    name: str | None = None
    """The key's; None where it is about a data key."""
    version: int | None = None
    """The secret's version, or the data key's generation."""
    kek_id: str | None = None
    """What a data key is wrapped by from now on."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the chain. Sequences count from 1 without a gap."""

    sequence: int
    at: str
    actor: str
    action: str
    tenant_id: str
    name: str | None
    version: int | None
    kek_id: str | None
    hash: bytes

    def expected_hash(self, previous: bytes) -> bytes:
        """Its hash, were it entered after that one."""
        fields = {
            "sequence": self.sequence,
            "at": self.at,
            "actor": self.actor,
            "action": self.action,
            "tenant_id": self.tenant_id,
            "name": self.name,
            "version": self.version,
            "kek_id": self.kek_id,
        }
        return hashlib.sha256(previous + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends."""

    sequence: int
    hash: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """New entries and the head after them."""

    entries: tuple[Entry, ...]
    head: Head


@dataclass(frozen=True, slots=True)
class Finding:
    """The first thing that is wrong with a trail."""

    sequence: int
    """The first bad entry; where the trail ends too early, the first that is missing."""
    reason: str


class Chain:
    """Appends to a trail and vouches for its end."""

    def __init__(self, root: KeyMaterial) -> None:
        self._key = root.derive(b"vault/audit-head")

    def __repr__(self) -> str:
        return "Chain(…)"

    def append(self, head: Head | None, deeds: Sequence[Deed]) -> Appended:
        """Entries for the deeds after this head; None begins a trail.

        Raises:
            AuditBroken: the head is not one that this vault made.
        """
        if head is not None and not self.vouches(head):
            raise AuditBroken(
                f"the head of the audit trail (entry {head.sequence}) was not made by this vault"
            )
        sequence, previous = (head.sequence, head.hash) if head is not None else (0, FIRST_HASH)
        entries = []
        for deed in deeds:
            sequence += 1
            fields = (
                deed.at,
                deed.actor,
                str(deed.action),
                deed.tenant_id,
                deed.name,
                deed.version,
                deed.kek_id,
            )
            entry = Entry(sequence, *fields, hash=b"")
            previous = entry.expected_hash(previous)
            entries.append(replace(entry, hash=previous))
        return Appended(tuple(entries), Head(sequence, previous, self._mac(sequence, previous)))

    def vouches(self, head: Head) -> bool:
        """Whether this vault made the head."""
        return hmac.compare_digest(head.mac, self._mac(head.sequence, head.hash))

    def _mac(self, sequence: int, entry_hash: bytes) -> bytes:
        return hmac.digest(self._key, _HEAD_LABEL + sequence.to_bytes(8, "big") + entry_hash, "sha256")


class Verifier:
    """Takes a trail's entries in order, then its head; tells the first thing that is wrong.

    ``anchor`` is a head that was kept elsewhere: the trail must hold it and go on from it.
    """

    def __init__(self, chain: Chain, anchor: Head | None = None) -> None:
        self._chain = chain
        self._anchor = anchor
        self._sequence = 0
        self._hash = FIRST_HASH

    def take(self, entry: Entry) -> Finding | None:
        """The next entry; a finding ends the verification."""
        expected = self._sequence + 1
        if entry.sequence != expected:
            return Finding(expected, f"entry {expected} is missing: {entry.sequence} comes in its place")
        if not hmac.compare_digest(entry.expected_hash(self._hash), entry.hash):
            return Finding(expected, f"entry {expected} is not what was entered")
        anchor = self._anchor
        if anchor is not None and anchor.sequence == expected and anchor.hash != entry.hash:
            return Finding(
                expected, f"entry {expected} is another than the head that was kept elsewhere says"
            )
        self._sequence, self._hash = expected, entry.hash
        return None

    def end(self, head: Head | None) -> Finding | None:
        """No more entries: whether they end where the head says."""
        after = self._sequence + 1
        anchor = self._anchor
        if anchor is not None and anchor.sequence > self._sequence:
            return Finding(
                after, f"entries {after} to {anchor.sequence} are missing: a head kept elsewhere has them"
            )
        if head is None:
            return Finding(1, "the head is missing") if self._sequence else None
        return self._compare(head)

    def _compare(self, head: Head) -> Finding | None:
        after = self._sequence + 1
        if not self._chain.vouches(head):
            return Finding(head.sequence, "the head was not made by this vault")
        if head.sequence > self._sequence:
            return Finding(after, f"entries {after} to {head.sequence} are missing at the end")
        if head.sequence < self._sequence:
            return Finding(head.sequence + 1, f"entry {head.sequence + 1} comes after the head")
        if head.hash != self._hash:
            return Finding(head.sequence, "the entries were computed anew: they do not lead to the head")
        return None
