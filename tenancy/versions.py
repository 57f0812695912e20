"""The life of a tenant's configuration versions. Sans-IO.

    draft ──> validated ──> active ──> superseded
      │           │            └─────> rolled back
      └──> refused┘

Rules:

- a version's content never changes; numbers only grow, and history only grows;
- one version is active, or none before the first; it changes by `activate`, `roll_back` and, for what a tenant's file says,
  `publish` alone;
- the first two name the version that their author saw active. Where another is by now, they get `Conflict` and nothing happens: of two
  at once, one wins;
- only a validated version is activated. Going back makes a new version with the old content, which has been validated;
- a tenant makes no more than so many a day and in all: what its file says is never refused;
- what a canary trial found bad is refused by `reject`, and can be tried again only as a new version.

A store keeps a `History` under its own lock, applies one operation to what it reads, and writes what comes of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

MAX_AUTHOR_CHARACTERS: Final = 200
MAX_REASON_CHARACTERS: Final = 1_000
MAX_OPEN_DRAFTS: Final = 50
"""Drafts and validated versions that were never active; one more is refused until some are rejected."""
MAX_DRAFTS_A_DAY: Final = 200
"""Versions made within 24 hours before one more draft; roll-backs have as many of their own."""
MAX_VERSIONS: Final = 10_000
"""No draft beyond; a roll-back, which may be urgent, still is."""
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class VersionState(StrEnum):
    """Where in its life a version is."""

    DRAFT = "draft"
    VALIDATED = "validated"
    REFUSED = "refused"
    """Invalid, withdrawn, or found bad on trial; never active."""
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    """It was active, and a later version took its place."""
    ROLLED_BACK = "rolled_back"
    """It was active, and was taken back."""


OPEN: Final = (VersionState.DRAFT, VersionState.VALIDATED)
ONCE_ACTIVE: Final = (VersionState.ACTIVE, VersionState.SUPERSEDED, VersionState.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who changed something, when and why. Raises `ValueError`, which names the field."""

    author: str
    reason: str
    at: datetime

    def __post_init__(self) -> None:
        for name, text, limit in (
            ("author", self.author, MAX_AUTHOR_CHARACTERS),
            ("reason", self.reason, MAX_REASON_CHARACTERS),
        ):
            if not text.strip() or len(text) > limit:
                raise ValueError(f"{name}: 1 to {limit} characters, not {len(text)}")
        if self.at.utcoffset() != timedelta(0):
            raise ValueError("at: must be in UTC")


@dataclass(frozen=True, slots=True)
class ConfigVersion:
    """One version: what it is, where it came from, what became of it."""

    version: int
    content_hash: str
    """SHA-256 of the canonical JSON, hexadecimal."""
    schema_version: int
    created: Origin
    state: VersionState = VersionState.DRAFT
    restores: int | None = None
    """The version whose content this is, where it was made by going back."""
    changed: Origin | None = None
    """Who brought it into its state; None: its creation did."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another version is active than the author saw."""

    expected: int | None
    found: int | None

    def __str__(self) -> str:
        return f"version {self.found} is active by now, not {self.expected}; look at it and try again"


@dataclass(frozen=True, slots=True)
class NoSuchVersion:
    """The tenant has no version of this number."""

    version: int

    def __str__(self) -> str:
        return f"there is no version {self.version}"


@dataclass(frozen=True, slots=True)
class WrongState:
    """The operation does not apply to a version in this state."""

    version: int
    state: VersionState
    allowed: tuple[VersionState, ...]

    def __str__(self) -> str:
        return f"version {self.version} is {self.state}; it must be {' or '.join(self.allowed)}"


@dataclass(frozen=True, slots=True)
class NothingToChange:
    """What would be activated is what is active, word for word."""

    version: int

    def __str__(self) -> str:
        return f"version {self.version} is active and has this very content"


@dataclass(frozen=True, slots=True)
class TooManyDrafts:
    """There are `MAX_OPEN_DRAFTS` versions that were never active."""

    def __str__(self) -> str:
        return f"{MAX_OPEN_DRAFTS} drafts are open; reject some first"


@dataclass(frozen=True, slots=True)
class TooManyVersions:
    """So many versions were made, lately or ever, that one more is refused."""

    limit: int
    again_at: datetime | None = None
    """When the next one may be; None: never."""

    def __str__(self) -> str:
        if self.again_at is None:
            return f"there are {self.limit} versions, the most that a tenant may have; roll-backs are still possible"
        again = f"{self.again_at:%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"{self.limit} versions were made within 24 hours, which is the most; the next one after {again}"
        )


Declined = Conflict | NoSuchVersion | WrongState | NothingToChange | TooManyDrafts | TooManyVersions


@dataclass(frozen=True, slots=True)
class Applied:
    """An operation was carried out."""

    history: History
    version: ConfigVersion
    """The version that the operation made or changed, as it is now."""


@dataclass(frozen=True, slots=True)
class History:
    """A tenant's versions, oldest first, numbered from 1 on."""

    versions: tuple[ConfigVersion, ...] = ()

    @property
    def active(self) -> ConfigVersion | None:
        """The version that new calls get."""
        return next((each for each in reversed(self.versions) if each.state is VersionState.ACTIVE), None)

    def get(self, version: int) -> ConfigVersion | None:
        """A version by its number."""
        return self.versions[version - 1] if 1 <= version <= len(self.versions) else None

    def draft(
        self, content_hash: str, schema_version: int, origin: Origin
    ) -> Applied | TooManyDrafts | TooManyVersions:
        """Add a version. Raises `ValueError` for what is no SHA-256."""
        if not _HASH.fullmatch(content_hash):
            raise ValueError("content_hash: 64 hexadecimal digits")
        if sum(each.state in OPEN for each in self.versions) >= MAX_OPEN_DRAFTS:
            return TooManyDrafts()
        if len(self.versions) >= MAX_VERSIONS:
            return TooManyVersions(MAX_VERSIONS)
        again_at = self._full_until(origin.at, [each for each in self.versions if each.restores is None])
        if again_at is not None:
            return TooManyVersions(MAX_DRAFTS_A_DAY, again_at)
        return self._added(ConfigVersion(len(self.versions) + 1, content_hash, schema_version, origin))

    def publish(self, content_hash: str, schema_version: int, origin: Origin) -> Applied | NothingToChange:
        """Add a version that was checked elsewhere (a tenant's file) and make it the active one, whatever was before.

        Drafts do not stand in its way.
        """
        active = self.active
        if active is not None and active.content_hash == content_hash:
            return NothingToChange(active.version)
        left = self._left(VersionState.SUPERSEDED, origin)
        number = len(left.versions) + 1
        return left._added(ConfigVersion(number, content_hash, schema_version, origin, VersionState.ACTIVE))

    def validate(self, version: int, origin: Origin) -> Applied | Declined:
        """Note that a draft has passed every check."""
        return self._changed(version, VersionState.VALIDATED, origin, allowed=(VersionState.DRAFT,))

    def reject(self, version: int, origin: Origin) -> Applied | Declined:
        """Note that a version that was never active must not become so."""
        return self._changed(version, VersionState.REFUSED, origin, allowed=OPEN)

    def activate(self, version: int, origin: Origin, *, expected: int | None) -> Applied | Declined:
        """Give a validated version to new calls. ``expected`` is the active version that the author saw; None: none."""
        declined = self._declined(version, expected, (VersionState.VALIDATED,))
        if declined is not None:
            return declined
        left = self._left(VersionState.SUPERSEDED, origin)
        return left._changed(version, VersionState.ACTIVE, origin, allowed=(VersionState.VALIDATED,))

    def roll_back(self, to: int, origin: Origin, *, expected: int | None) -> Applied | Declined:
        """Give new calls the content of an earlier version, as a new version. ``expected`` as in `activate`."""
        declined = self._declined(to, expected, ONCE_ACTIVE)
        if declined is not None:
            return declined
        again_at = self._full_until(origin.at, [each for each in self.versions if each.restores is not None])
        if again_at is not None:
            return TooManyVersions(MAX_DRAFTS_A_DAY, again_at)
        left = self._left(VersionState.ROLLED_BACK, origin)
        old = left.versions[to - 1]
        number = len(left.versions) + 1
        return left._added(
            ConfigVersion(
                number, old.content_hash, old.schema_version, origin, VersionState.ACTIVE, restores=to
            )
        )

    def _declined(
        self, version: int, expected: int | None, allowed: tuple[VersionState, ...]
    ) -> Declined | None:
        """Why a version, or its content, may not take the active one's place."""
        target, active = self.get(version), self.active
        if target is None:
            return NoSuchVersion(version)
        # Before the state: who lost a race is told so, not that the version is active already.
        found = None if active is None else active.version
        if found != expected:
            return Conflict(expected, found)
        if target.state not in allowed:
            return WrongState(version, target.state, allowed)
        if active is not None and active.content_hash == target.content_hash:
            return NothingToChange(active.version)
        return None

    @staticmethod
    def _full_until(now: datetime, alike: list[ConfigVersion]) -> datetime | None:
        """When one more of these may be made, where there are too many of the last 24 hours."""
        if len(alike) < MAX_DRAFTS_A_DAY:
            return None
        again_at = alike[-MAX_DRAFTS_A_DAY].created.at + timedelta(days=1)
        return again_at if now < again_at else None

    def _left(self, state: VersionState, origin: Origin) -> History:
        """The history with the active version, if any, out of its place."""
        active = self.active
        return self if active is None else self._with(replace(active, state=state, changed=origin))

    def _changed(
        self, version: int, state: VersionState, origin: Origin, *, allowed: tuple[VersionState, ...]
    ) -> Applied | Declined:
        found = self.get(version)
        if found is None:
            return NoSuchVersion(version)
        if found.state not in allowed:
            return WrongState(version, found.state, allowed)
        changed = replace(found, state=state, changed=origin)
        return Applied(self._with(changed), changed)

    def _with(self, version: ConfigVersion) -> History:
        index = version.version - 1
        return History((*self.versions[:index], version, *self.versions[index + 1 :]))

    def _added(self, version: ConfigVersion) -> Applied:
        return Applied(History((*self.versions, version)), version)
