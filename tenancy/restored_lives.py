"""What becomes of versions' lives where a backup is brought back.

Nothing of the log is lost: lines that only the backup has are added after those that are here. Of a version that both have,
the state that is further in its life counts, and of a trial its end. A trial that runs here goes on while its baseline is
active. One that ran when the backup was made, and that nothing is known of here, does not run again: its calls were counted
elsewhere since, or not at all. It ends, and its version is refused, as with every trial that shows nothing. What the tenant's
file said last is taken from the backup only where nothing is known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.canary import Decision, Verdict
from tenancy.ledger import Deed
from tenancy.ledger_repository import trial_of
from tenancy.ledger_rows import LogRow, StateRow, TrialRow
from tenancy.repository import TenantRepository
from tenancy.store import StoredVersion
from tenancy.versions import VersionState


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of versions."""

    made_at: datetime
    versions: tuple[StoredVersion, ...]
    active_version: int
    trials: tuple[TrialRow, ...]
    followed: str | None
    log: tuple[LogRow, ...]

    @property
    def active(self) -> StoredVersion:
        """The version that was active."""
        return next(each for each in self.versions if each.version == self.active_version)

    @property
    def reason(self) -> str:
        """Why something is changed because of it."""
        return f"restored from the backup of {self.made_at.isoformat(timespec='seconds')}"

    def line(self, author: str, now: datetime) -> LogRow:
        """What the log says of its active version, where that is active again."""
        return LogRow(now, author, Deed.RESTORED.value, self.active_version, self.reason)


@dataclass(frozen=True, slots=True)
class Restored:
    """What bringing both together has shown."""

    here_is_older: bool
    """The backup knows all that was done here, and more."""
    ran: tuple[TrialRow, ...]
    """Trials that ran when the backup was made and that nothing was known of here."""


async def bring_together(
    repository: TenantRepository,
    connection: AsyncConnection,
    backup: Backup,
    present: Mapping[int, StoredVersion],
) -> Restored:
    """Write what the backup knows besides; its versions are there already. ``present``: those that were before."""
    rows = repository.rows
    later = [
        each
        for each in backup.versions
        if each.version in present and _progress(each) > _progress(present[each.version])
    ]
    await rows.put_states(connection, [state for each in later if (state := _state(each)) is not None])
    known = {each.version: each for each in await rows.trials(connection)}
    await rows.put_trials(
        connection,
        [
            each
            for each in backup.trials
            if not each.running and (each.version not in known or known[each.version].running)
        ],
    )
    here = await rows.log(connection)
    await rows.add_log(connection, _missing(backup.log, here))
    if backup.followed is not None and await repository.ledgers.followed(connection) is None:
        await repository.ledgers.follow(connection, backup.followed)
    return Restored(
        here_is_older=len(here) < len(backup.log)
        and backup.log[: len(here)] == here
        and present.keys() <= {each.version for each in backup.versions},
        ran=tuple(each for each in backup.trials if each.running and each.version not in known),
    )


async def settle_trials(
    repository: TenantRepository,
    connection: AsyncConnection,
    backup: Backup,
    restored: Restored,
    now: datetime,
) -> None:
    """End the trials that do not go on: the backup's, and the one here if its baseline is active no more."""
    ledgers = repository.ledgers
    reason = f"it ran when the backup of {backup.made_at.isoformat(timespec='seconds')} was made"
    verdict = Verdict(Decision.ROLL_BACK, reason, int(now.timestamp() * 1000))
    for row in restored.ran:
        before = await ledgers.ledger(connection)
        await ledgers.write(connection, before, before.end(trial_of(row.body), verdict, now))
    before = await ledgers.ledger(connection)
    edit = before.set_right(now)
    if edit is not None:
        await ledgers.write(connection, before, edit)


def _progress(version: StoredVersion) -> tuple[int, datetime]:
    """How far a version is in its life, which has one direction; the time tells apart only what cannot follow each other."""
    match version.state:
        case None:
            how_far = 0
        case VersionState.DRAFT:
            how_far = 1
        case VersionState.VALIDATED:
            how_far = 2
        case VersionState.REFUSED | VersionState.ACTIVE:
            how_far = 3
        case _:
            how_far = 4
    return how_far, version.changed_at or version.created_at


def _state(version: StoredVersion) -> StateRow | None:
    if version.state is None:
        return None
    return StateRow(
        version.version,
        version.state,
        version.restores,
        version.changed_by,
        version.changed_reason,
        version.changed_at,
    )


def _missing(lines: tuple[LogRow, ...], here: tuple[LogRow, ...]) -> list[LogRow]:
    """Those of the lines that are not here, each as often as it is there more often."""
    left = Counter(here)
    missing = []
    for line in lines:
        if left[line]:
            left[line] -= 1
        else:
            missing.append(line)
    return missing
