"""A session of measurements: everything runs in one place, one step after the other, so that figures can be compared."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from perf.harness import generator
from perf.harness.figures import Figures, Spent, Spread, figures
from perf.harness.gate import Bar, passes
from perf.harness.generator import Heard, Load
from perf.harness.losses import losing_workers, takeovers
from perf.harness.processes import Cores, Usage, usage
from perf.harness.servers import Server, provider_stats
from perf.harness.speech import inner_pauses_ms, read

SETTLE_S = 2.0
"""Between two steps: what a call leaves to be done afterwards is not the next one's."""
SOAK_SAMPLE_S = 5.0
LOSS_EVERY_S = 10.0
LOSS_TURNS = 3
"""Calls come and go: one whose worker is lost five times is given up as what kills them."""
KNEE_MOST = 1_600
KNEE_WITHIN = 0.1
RATE_LEAST, RATE_MOST = 5.0, 50.0

Say = Callable[[str], None]


@dataclass(slots=True)
class Session:
    """What the steps of a session share."""

    binary: Path
    speech: Path
    cores: Cores
    providers_url: str
    providers_pid: int
    say: Say
    seconds: float
    barge_in_every: int = 0
    steps: list[Figures] = field(default_factory=list)
    _number: int = 0

    def step(self, server: Server, load: Load, shape: str = "ramp") -> Figures:
        """Run callers and take the figures."""
        meter = _Meter(server.pid, self.providers_pid, self.providers_url)
        # Call-IDs of one step do not come again in the next.
        self._number += 1
        load = replace(load, seed=self._number + 1000 * os.getpid())
        callers = generator.Callers(self.binary, self.speech, self.cores.others)
        heard = callers.call(server.target, load, meter.mark)
        paused = frozenset(spoken.name for spoken in read(self.speech) if inner_pauses_ms(spoken))
        found = figures(
            heard,
            # What lost workers used went with them.
            meter.spent(heard) if server.pid is not None and shape != "losses" else None,
            server=server.name,
            shape=shape,
            calls=load.calls,
            paused=paused,
            wait_ms=server.end_of_turn_ms,
        )
        self.steps.append(found)
        self.say(progress(found))
        time.sleep(SETTLE_S)
        return found

    def at(self, server: Server, calls: int, shape: str = "ramp") -> Figures:
        """So many calls at a time."""
        rate = min(RATE_MOST, max(RATE_LEAST, calls / 4))
        load = Load(calls, rate=rate, seconds=self.seconds, barge_in_every=self.barge_in_every)
        return self.step(server, load, shape)

    def knee(self, server: Server, bars: Sequence[Bar]) -> int:
        """The most calls at a time that keep the bars, to a tenth: doubled until they do not, then halved in between."""
        known = {step.calls: passes(step, bars) for step in self.steps if step.server == server.name}
        good = max((calls for calls, kept in known.items() if kept), default=0)
        bad = min((calls for calls, kept in known.items() if not kept and calls > good), default=0)
        while not bad and good < KNEE_MOST:
            calls = max(10, 2 * good)
            if passes(self.at(server, calls, "knee"), bars):
                good = calls
            else:
                bad = calls
        while bad - good > max(1, KNEE_WITHIN * good):
            calls = (good + bad) // 2
            if passes(self.at(server, calls, "knee"), bars):
                good = calls
            else:
                bad = calls
        return good

    def soak(
        self, server: Server, calls: int, minutes: float, turns: int
    ) -> tuple[Figures, dict[str, float]]:
        """Calls that come and go for that long, and what became of the server's memory."""
        samples: list[tuple[float, float]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(SOAK_SAMPLE_S):
                if server.pid is not None:
                    samples.append((time.monotonic(), usage(server.pid).pss_mb))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            load = Load(calls, rate=min(RATE_MOST, calls), seconds=60 * minutes, turns=turns)
            found = self.step(server, load, "soak")
        finally:
            done.set()
            watcher.join()
        return found, growth(samples)

    def losses(self, server: Server, calls: int, workers: int) -> dict[str, float | None]:
        """So many workers lost, one after the other, with so many calls up."""
        if server.pid is None or server.metrics_url is None:
            raise SystemExit("workers can be lost on our own server only")
        rate = min(RATE_MOST, max(RATE_LEAST, calls / 4))
        load = Load(calls, rate=rate, seconds=LOSS_EVERY_S * (workers + 0.5) - calls / rate, turns=LOSS_TURNS)
        with losing_workers(server.pid, LOSS_EVERY_S) as lost:
            self.step(server, load, "losses")
        return takeovers(server.metrics_url, len(lost))

    def burst(self, server: Server, rate: float, lasts_s: float, hold_ms: int) -> Figures:
        """So many new calls a second for that long; each is greeted, stays a moment and hangs up."""
        total = round(rate * lasts_s)
        load = Load(total, rate=rate, total=total, turns=0, hold_ms=hold_ms)
        return self.step(server, load, "burst")


class _Meter:
    """Reads what processes used when the time that counts begins and ends."""

    def __init__(self, server: int | None, providers: int, providers_url: str) -> None:
        self._server, self._providers, self._providers_url = server, providers, providers_url
        self._before = usage(server) if server is not None else Usage()
        self._late_ms: list[float] = []
        self._readings: dict[str, tuple[Usage, float]] = {}

    def mark(self, name: str) -> None:
        server = usage(self._server) if self._server is not None else Usage()
        self._readings[name] = server, sum(usage(self._providers).cpu_s.values())
        self._late_ms = provider_stats(self._providers_url).late_ms

    def spent(self, heard: Heard) -> Spent:
        (server, providers), (server_end, providers_end) = self._readings["begin"], self._readings["end"]
        # The callers' own time is known for all of their run alone.
        share = heard.lasted_s / max(1e-9, heard.summary["at_ms"] / 1000)
        return Spent(
            cpu_s=server_end.since(server),
            generator_s=heard.summary["cpu_ms"] / 1000 * share,
            providers_s=providers_end - providers,
            pss_before_mb=self._before.pss_mb,
            pss_mb=server_end.pss_mb,
            waited_s=server_end.waited_s - server.waited_s,
            providers_late_ms=Spread.of(self._late_ms),
        )


def growth(samples: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Memory over time: first, last and largest MB, and the slope of the last two thirds in MB per hour."""
    if len(samples) < 3:
        return {}
    settled = samples[len(samples) // 3 :]
    mean_s = sum(at for at, _ in settled) / len(settled)
    mean_mb = sum(mb for _, mb in settled) / len(settled)
    spread = sum((at - mean_s) ** 2 for at, _ in settled)
    slope = sum((at - mean_s) * (mb - mean_mb) for at, mb in settled) / spread if spread else 0.0
    return {
        "first_mb": round(samples[0][1], 2),
        "last_mb": round(samples[-1][1], 2),
        "most_mb": round(max(mb for _, mb in samples), 2),
        "mb_per_hour": round(slope * 3600, 3),
    }


def progress(step: Figures) -> str:
    """One line of what a step found."""
    latency = step.latency_ms
    return (
        f"{step.server}, {step.shape}, {step.calls} calls: {step.turns} turns, {step.failed} calls failed, "
        f"latency p50 {latency.p50} p99 {latency.p99} ms, spacing error p99.9 {step.spacing_error_ms.p99_9} ms, "
        f"{step.cpu_ms_whole:.2f} CPU-ms per call-second"
    )
