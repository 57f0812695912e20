"""The callers: the `loadgen` binary (`native/loadgen`), what it is told and what it says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from perf.examples import ROOT
from perf.harness.processes import start, stopped_after

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """What callers do. See ``loadgen``'s usage."""

    calls: int
    rate: float = 25.0
    seconds: float | None = None
    turns: int | None = None
    total: int | None = None
    hold_ms: int | None = None
    barge_in_every: int = 0
    quiet_ms: int = 600
    seed: int = 0

    def arguments(self) -> list[str]:
        """As the command line has it."""
        options = {
            "calls": self.calls,
            "rate": self.rate,
            "seconds": self.seconds,
            "turns": self.turns,
            "total": self.total,
            "hold-ms": self.hold_ms,
            "barge-in-every": self.barge_in_every,
            "quiet-ms": self.quiet_ms,
            "seed": self.seed,
        }
        given = ((name, value) for name, value in options.items() if value is not None)
        return [word for name, value in given for word in (f"--{name}", f"{value}")]


@dataclass(slots=True)
class Heard:
    """Everything that the callers reported."""

    begin: Event = field(default_factory=dict)
    end: Event = field(default_factory=dict)
    summary: Event = field(default_factory=dict)
    calls: list[Event] = field(default_factory=list)
    turns: list[Event] = field(default_factory=list)

    def take(self, event: Event, on_mark: Callable[[str], None]) -> None:
        """A line of the report."""
        match name := event.pop("event"):
            case "begin" | "end" | "summary":
                setattr(self, name, event)
                if name != "summary":
                    on_mark(name)
            case "turn":
                self.turns.append(event)
            case "call":
                self.calls.append(event)

    @property
    def measured_turns(self) -> list[Event]:
        """Turns whose question ended in the time that counts."""
        since = self.begin["at_ms"]
        return [turn for turn in self.turns if turn["at_ms"] >= since]

    @property
    def call_s(self) -> float:
        """Seconds of call in that time."""
        return float(self.end["call_s"] - self.begin["call_s"])

    @property
    def lasted_s(self) -> float:
        """That time."""
        return float(self.end["at_ms"] - self.begin["at_ms"]) / 1000


def build() -> Path:
    """The binary, built if need be."""
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--locked", "-p", "loadgen"], cwd=ROOT, check=True
    )
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps", "--offline"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    return Path(orjson.loads(metadata.stdout)["target_directory"]) / "release" / "loadgen"


@dataclass(frozen=True, slots=True)
class Callers:
    """The binary, what it says, and where it runs."""

    binary: Path
    speech: Path
    cores: Sequence[int]

    def call(
        self, target: Sequence[str], load: Load, on_mark: Callable[[str], None] = lambda _: None
    ) -> Heard:
        """Place calls; ``on_mark`` is called when the time that counts begins and when it ends.

        Raises:
            RuntimeError: The callers ended without a report.
        """
        command = [str(self.binary), *target, "--speech", str(self.speech), *load.arguments()]
        process = start(command, self.cores)
        heard = Heard()
        assert process.stdout is not None
        with stopped_after(process):
            for line in process.stdout:
                heard.take(orjson.loads(line), on_mark)
            process.wait()
        if not heard.summary:
            raise RuntimeError(f"the callers ended with status {process.returncode}")
        return heard
