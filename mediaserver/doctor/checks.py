"""What a doctor says: one line for each check, with what was measured and what to do. Sans-IO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final

MAX_LINE_CHARACTERS: Final = 400
"""Of what a check measured: a file may hold anything."""


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    """Calls are answered; something will, or does, cost some of them."""
    ERROR = "error"
    """Calls, or what is kept of them, are lost; or the node cannot start."""


EXIT: Final = {Status.OK: 0, Status.WARNING: 1, Status.ERROR: 2}
"""The program's exit status is that of the worst check."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    name: str
    status: Status
    measured: str
    todo: str = ""
    """What to do about it; empty where it is ok."""
    figures: dict[str, object] = field(default_factory=dict)
    """The same for programs."""

    def __post_init__(self) -> None:
        printable = "".join(each if each.isprintable() else " " for each in self.measured)
        object.__setattr__(self, "measured", printable[:MAX_LINE_CHARACTERS])
        if (self.status is Status.OK) != (not self.todo):
            raise ValueError(f"{self.name}: what is not ok, and nothing else, has something to do")


def ok(name: str, measured: str, **figures: object) -> Check:
    """All is well."""
    return Check(name, Status.OK, measured, figures=figures)


def warning(name: str, measured: str, todo: str, **figures: object) -> Check:
    """Something to look at."""
    return Check(name, Status.WARNING, measured, todo, figures)


def error(name: str, measured: str, todo: str, **figures: object) -> Check:
    """Something to repair."""
    return Check(name, Status.ERROR, measured, todo, figures)


def worst(checks: Sequence[Check]) -> Status:
    """The worst status of some checks; ok without any."""
    return max((each.status for each in checks), key=EXIT.__getitem__, default=Status.OK)


def as_text(checks: Sequence[Check]) -> str:
    """For people: a line for each check, and below it what to do."""
    width = max((len(each.name) for each in checks), default=0)
    lines = []
    for each in checks:
        lines.append(f"{each.status:<8} {each.name:<{width}}  {each.measured}")
        lines += [f"{'':9}{'':{width}}  -> {line}" for line in each.todo.splitlines()]
    counts = {status: sum(each.status is status for each in checks) for status in Status}
    lines.append("")
    lines.append(", ".join(f"{count} {status}" for status, count in counts.items()))
    return "\n".join(lines)


def as_document(checks: Sequence[Check]) -> dict[str, object]:
    """For programs."""
    return {"status": str(worst(checks)), "checks": [asdict(each) for each in checks]}
