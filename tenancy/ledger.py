"""A tenant's versions with the trial that runs, and what one change makes of them. Sans-IO.

A store reads a `Ledger` under the tenant's lock, gives it to one of these methods, and writes the `Edit` that comes back:
all of it or nothing. Every edit has lines for the log, which is only ever added to. A running trial ends with what it rests
on: with its version, when that is rejected, and with its baseline, when another version becomes active.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from tenancy.canary import CallOutcome, Canary, CanaryPlan, Decision, Verdict, settle
from tenancy.errors import ChangeRefused, VersionConflict
from tenancy.versions import (
    MAX_REASON_CHARACTERS,
    Applied,
    ConfigVersion,
    Conflict,
    Declined,
    History,
    Origin,
    VersionState,
)

TRIAL_AUTHOR: Final = "canary"
"""Who carries out a trial's verdict."""


class Deed(StrEnum):
    """What was done to a version."""

    DRAFTED = "drafted"
    VALIDATED = "validated"
    REJECTED = "rejected"
    ACTIVATED = "activated"
    ROLLED_BACK = "rolled back"
    """Its content was brought back, as this version."""
    IMPORTED = "imported"
    TRIAL_BEGUN = "trial begun"
    TRIAL_PROMOTED = "trial promoted"
    TRIAL_ROLLED_BACK = "trial rolled back"
    RESTORED = "restored"
    """It became active with a backup that was brought back, or with its tenant."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """Who did what to which version, when and why."""

    origin: Origin
    deed: Deed
    version: int
    entry: int = field(default=0, compare=False)
    """Its place in the store that has it, above those of lines before it; 0 where none has it yet."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: the ledger after it, and what it adds to the log."""

    ledger: Ledger
    version: ConfigVersion
    """The version that it was about, as it is now."""
    log: tuple[LogLine, ...]
    body: str | None = None
    """The content of a version that was added. None: none was, or it has that of the one which it restores."""
    ended: Canary | None = None
    """The trial that is over with this."""

    @property
    def reaches_calls(self) -> bool:
        """Whether new calls get something else than before."""
        return any(line.deed not in (Deed.DRAFTED, Deed.VALIDATED, Deed.REJECTED) for line in self.log)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is known of a tenant's versions."""

    history: History = field(default_factory=History)
    trial: Canary | None = None
    """The one that runs."""

    def draft(self, content_hash: str, schema_version: int, body: str, origin: Origin) -> Edit:
        """Add a version. Raises `ChangeRefused`."""
        applied = _applied(self.history.draft(content_hash, schema_version, origin))
        return self._edit(applied, origin, Deed.DRAFTED, body=body)

    def publish(self, content_hash: str, schema_version: int, body: str, origin: Origin) -> Edit:
        """Add what a tenant's file says as the active version. Raises `ChangeRefused` where it is that already."""
        applied = _applied(self.history.publish(content_hash, schema_version, origin))
        return self._edit(applied, origin, Deed.IMPORTED, body=body)

    def validate(self, version: int, origin: Origin) -> Edit:
        """Note that a draft has passed every check. Raises `ChangeRefused`."""
        return self._edit(_applied(self.history.validate(version, origin)), origin, Deed.VALIDATED)

    def reject(self, version: int, origin: Origin) -> Edit:
        """Note that a version must not become active. Raises `ChangeRefused`."""
        return self._edit(_applied(self.history.reject(version, origin)), origin, Deed.REJECTED)

    def activate(self, version: int, origin: Origin, *, expected: int | None, checked: bool = False) -> Edit:
        """Give a validated version to new calls; a draft as well, where its content was ``checked``.

        Raises `VersionConflict`, `ChangeRefused`.
        """
        ledger, log = self._with_validated(version, origin) if checked else (self, ())
        applied = _applied(ledger.history.activate(version, origin, expected=expected))
        edit = ledger._edit(applied, origin, Deed.ACTIVATED)
        return replace(edit, log=(*log, *edit.log))

    def roll_back(self, to: int, origin: Origin, *, expected: int | None) -> Edit:
        """Give new calls the content of an earlier version. Raises `VersionConflict`, `ChangeRefused`."""
        applied = _applied(self.history.roll_back(to, origin, expected=expected))
        return self._edit(applied, origin, Deed.ROLLED_BACK)

    def begin_trial(self, plan: CanaryPlan, origin: Origin, *, checked: bool = False) -> Edit:
        """Give a version to a share of calls, as `activate` does to all. Raises `VersionConflict`, `ChangeRefused`."""
        if self.trial is not None:
            raise ChangeRefused(f"version {self.trial.plan.version} is on trial; end that first")
        ledger, log = self._with_validated(plan.version, origin) if checked else (self, ())
        # What could not be activated is not tried either, and in the same words.
        _applied(ledger.history.activate(plan.version, origin, expected=plan.baseline))
        version = ledger.history.get(plan.version)
        assert version is not None  # It was activated above.
        ledger = replace(ledger, trial=Canary(plan, _ms(origin.at)))
        return Edit(ledger, version, (*log, LogLine(origin, Deed.TRIAL_BEGUN, plan.version)))

    def _with_validated(self, version: int, origin: Origin) -> tuple[Ledger, tuple[LogLine, ...]]:
        """Where it is a draft, with that draft validated, and what the log has of it."""
        found = self.history.get(version)
        if found is None or found.state is not VersionState.DRAFT:
            return self, ()
        edit = self.validate(version, origin)
        return edit.ledger, edit.log

    def end_trial(self, origin: Origin, *, expected: int | None = None) -> Edit:
        """Take the version on trial back. Raises `ChangeRefused` where none is, or another than ``expected``."""
        if self.trial is None:
            raise ChangeRefused("no version is on trial")
        if expected not in (None, self.trial.plan.version):
            raise ChangeRefused(f"version {self.trial.plan.version} is on trial by now, not {expected}")
        return self.reject(self.trial.plan.version, origin)

    def observe(self, outcome: CallOutcome, at: datetime) -> Edit | None:
        """Count a call that has ended in the trial, and carry its verdict out; None where no trial runs."""
        return self._looked_at(lambda trial: trial.observe(outcome, _ms(at)), at)

    def tick(self, at: datetime) -> Edit | None:
        """End a trial whose time is over; None where none is."""
        edit = self._looked_at(lambda trial: trial.tick(_ms(at)), at)
        return edit if edit is not None and edit.ended is not None else None

    def set_right(self, at: datetime) -> Edit | None:
        """End a trial whose baseline was replaced otherwise than by these methods; None where none is."""
        active = self.history.active
        number = None if active is None else active.version
        edit = self._looked_at(lambda trial: trial.baseline_gone(number, _ms(at)), at)
        return edit if edit is not None and edit.ended is not None else None

    def _looked_at(self, look: Callable[[Canary], Canary], at: datetime) -> Edit | None:
        if self.trial is None:
            return None
        trial = look(self.trial)
        if trial.verdict is None:
            version = self.history.get(trial.plan.version)
            assert version is not None  # A trial is of a version that is there.
            return Edit(replace(self, trial=trial), version, ())
        return replace(self, trial=None).end(trial, trial.verdict, at)

    def end(self, trial: Canary, verdict: Verdict, at: datetime) -> Edit:
        """Carry out the verdict on a trial that is not the one which runs, or no longer is."""
        trial, number = replace(trial, verdict=verdict), trial.plan.version
        origin = Origin(TRIAL_AUTHOR, verdict.reason[:MAX_REASON_CHARACTERS], at)
        settled = settle(trial, self.history, origin)
        history = settled.history if isinstance(settled, Applied) else self.history
        version = history.get(number)
        assert version is not None
        return Edit(
            replace(self, history=history),
            version,
            (LogLine(origin, _deed(verdict), number),),
            ended=trial,
        )

    def _edit(self, applied: Applied, origin: Origin, deed: Deed, *, body: str | None = None) -> Edit:
        history, trial, ended = applied.history, self.trial, None
        log = [LogLine(origin, deed, applied.version.version)]
        if trial is not None:
            ended = _overtaken(trial, history, origin)
        if ended is not None and ended.verdict is not None:
            trial = None
            ending = replace(origin, author=TRIAL_AUTHOR, reason=ended.verdict.reason)
            log.append(LogLine(ending, _deed(ended.verdict), ended.plan.version))
            settled = settle(ended, history, ending)
            if isinstance(settled, Applied):
                history = settled.history
        version = history.get(applied.version.version)
        assert version is not None
        return Edit(Ledger(history, trial), version, tuple(log), body, ended)


def _overtaken(trial: Canary, history: History, origin: Origin) -> Canary | None:
    """The trial's end, where what it rests on is gone."""
    now_ms, number = _ms(origin.at), trial.plan.version
    version, active = history.get(number), history.active
    if version is not None and version.state is VersionState.ACTIVE:
        verdict = Verdict(Decision.PROMOTE, f"version {number} was activated by {origin.author}", now_ms)
        return replace(trial, verdict=verdict)
    if version is not None and version.state is VersionState.REFUSED:
        verdict = Verdict(Decision.ROLL_BACK, f"version {number} was rejected by {origin.author}", now_ms)
        return replace(trial, verdict=verdict)
    over = trial.baseline_gone(None if active is None else active.version, now_ms)
    return None if over.verdict is None else over


def _deed(verdict: Verdict) -> Deed:
    return Deed.TRIAL_PROMOTED if verdict.decision is Decision.PROMOTE else Deed.TRIAL_ROLLED_BACK


def _applied(outcome: Applied | Declined) -> Applied:
    if isinstance(outcome, Applied):
        return outcome
    if isinstance(outcome, Conflict):
        raise VersionConflict(str(outcome), outcome.expected, outcome.found)
    raise ChangeRefused(str(outcome))


def _ms(at: datetime) -> int:
    """Milliseconds since the epoch: a trial goes on after a restart."""
    return int(at.astimezone(UTC).timestamp() * 1000)
