"""Which files of a watched folder are to be read. Sans-IO: it is told what the folder holds, look by look.

Rules:

- a file is read when it looks the same twice running and other than when it was read last: one that is being written is left
  alone until it rests;
- what could not be applied for a reason outside the file (a number that another tenant still has) is tried again at each look;
- a file that is gone does nothing: its tenant goes on with what it has. Who wants it gone suspends the tenant;
- at most `MAX_FILES` files, by name; more are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_FILES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes when a file does."""

    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file is not in use."""

    text: str
    """With file, line and field, where they are known."""
    again: bool
    """Whether the reason may go away without the file changing."""


@dataclass(slots=True)
class FolderWatch:
    """What was seen of the folder, and what became of its files."""

    refusals: dict[str, Refusal] = field(default_factory=dict)
    """By file; those that are not in use as they stand there."""
    left_out: int = 0
    """Files beyond `MAX_FILES`."""
    applied: int = 0
    """Files that were taken over since the start."""
    _seen: Mapping[str, Signature] = field(default_factory=dict)
    _read: dict[str, Signature] = field(default_factory=dict)
    _tenants: dict[str, str] = field(default_factory=dict)

    def looked(self, found: Mapping[str, Signature], *, at_once: bool = False) -> tuple[str, ...]:
        """The folder holds this now: which files are to be read, in order. ``at_once``: those that may be in writing too."""
        names = sorted(found)
        self.left_out = max(0, len(names) - MAX_FILES)
        kept = {name: found[name] for name in names[:MAX_FILES]}
        for gone in [name for name in self._read if name not in kept]:
            del self._read[gone]
            self.refusals.pop(gone, None)
            self._tenants.pop(gone, None)
        due = [
            name
            for name, signature in kept.items()
            if (at_once or self._seen.get(name) == signature) and self._is_due(name, signature)
        ]
        self._seen = kept
        return tuple(due)

    def _is_due(self, name: str, signature: Signature) -> bool:
        if self._read.get(name) != signature:
            return True
        refusal = self.refusals.get(name)
        return refusal is not None and refusal.again

    def other_file_of(self, tenant_id: str, name: str) -> str | None:
        """Which other file has said that it is this tenant's."""
        return next(
            (other for other, owner in self._tenants.items() if owner == tenant_id and other != name), None
        )

    def taken(self, name: str, tenant_id: str) -> None:
        """The file, as it was seen last, is in use."""
        self._note(name)
        self._tenants[name] = tenant_id
        self.refusals.pop(name, None)
        self.applied += 1

    def refused(self, name: str, text: str, *, again: bool) -> bool:
        """The file, as it was seen last, is not in use; whether that is news."""
        self._note(name)
        refusal = Refusal(text, again)
        news = self.refusals.get(name) != refusal
        self.refusals[name] = refusal
        return news

    def _note(self, name: str) -> None:
        signature = self._seen.get(name)
        if signature is not None:
            self._read[name] = signature
