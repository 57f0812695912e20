"""``python -m perf run``: place calls, report, judge."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from perf.examples import ROOT
from perf.harness import gate, generator, report
from perf.harness.latency import PRESETS, Scenario
from perf.harness.plot import svg
from perf.harness.processes import Cores
from perf.harness.servers import (
    Server,
    SimulatedProviders,
    our_server,
    provider_stats,
    simulated_providers,
    stock_server,
    worker_option,
)
from perf.harness.session import Session
from perf.harness.speech import prepare

RESULTS = ROOT / "perf" / "results"
CACHE = ROOT / "var" / "harness"
DEFAULT_RAMP = (10, 25, 50, 100, 200, 400)
SHORT_RAMP = (10,)
SHORT_SECONDS = 15.0
GATE_CALLS = 100
STOCK_RAMP = (1, 3, 5, 7)
BURST_S = 60.0
SETTLE_S = 2.0
BURST_HOLD_MS = 2_000
SOAK_TURNS = 3
EXIT_GATE = 1


def add(commands: Any) -> None:
    """The command's options."""
    run = commands.add_parser("run", help="measure a server under load", description=__doc__)
    whom = run.add_mutually_exclusive_group()
    whom.add_argument(
        "--serve", action="store_true", help="start our server and simulated providers (default)"
    )
    whom.add_argument("--only-stock", action="store_true", help="measure the stock pipeline alone")
    whom.add_argument("--target", metavar="sip:USER@IP:PORT", help="measure whatever answers there")
    run.add_argument("--calls", type=int, metavar="N", help="one step of N calls at a time")
    run.add_argument("--ramp", type=_numbers, metavar="10,25,…", help="steps of so many calls at a time")
    run.add_argument(
        "--seconds", type=float, help="each step lasts so long when all calls are up (default: 30)"
    )
    run.add_argument("--turns", type=int, default=SOAK_TURNS, help="turns of each call of a soak")
    run.add_argument(
        "--knee", action="store_true", help="search for the most calls that keep the gate's bars"
    )
    run.add_argument("--soak", type=float, metavar="MIN", help="calls that come and go for so many minutes")
    run.add_argument("--burst", type=float, metavar="RATE", help="so many new calls a second")
    run.add_argument("--burst-seconds", type=float, default=BURST_S, help="for so long (default: 60)")
    run.add_argument(
        "--losses", type=int, metavar="N", help="lose N workers, by SIGKILL and SIGSTOP, with --calls up"
    )
    run.add_argument("--barge-in-every", type=int, default=0, metavar="N", help="talk into each N-th answer")
    run.add_argument(
        "--stock", action="store_true", help="measure the stock pipeline too, in the same session"
    )
    run.add_argument("--stock-ramp", type=_numbers, default=STOCK_RAMP, metavar="1,3,…", help="its steps")
    run.add_argument(
        "--providers", choices=PRESETS, default="launch", help="delays and faults of the providers"
    )
    run.add_argument("--scenario", type=Path, metavar="FILE", help="the same as JSON (README.md)")
    for stage in ("stt", "llm", "tts"):
        run.add_argument(f"--{stage}-ms", metavar="P50[,P99]", help=f"the delay of {stage} alone")
    run.add_argument("--workers", type=int, help="worker processes of our server, where it has any")
    run.add_argument("--server-cores", type=int, default=1, help="processors for the server (default: 1)")
    run.add_argument(
        "--end-of-turn-ms", type=int, help="our tenant's wait, whatever the words (default: by the words)"
    )
    run.add_argument("--speech-stop-ms", type=int, help="our tenant's silence before transcription")
    run.add_argument(
        "--live-stt", action="store_true", help="our tenant is transcribed while its callers speak"
    )
    run.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    run.add_argument("--plot", type=Path, metavar="FILE", help="an SVG of it")
    run.add_argument("--results", action="store_true", help="also a dated copy in perf/results/")
    run.add_argument("--gate", action="store_true", help="fail below the launch gate")
    run.add_argument(
        "--short", action="store_true", help="for CI: one small step, bars for shared processors"
    )
    run.set_defaults(run=measure)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(word) for word in text.split(","))
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers of calls")
    return numbers


def measure(options: argparse.Namespace) -> int:
    """Run what was asked for; returns the exit status."""
    _say(f"speech and generator … (processors: {sorted(os.sched_getaffinity(0))})")
    speech, binary = prepare(CACHE), generator.build()
    cores = Cores.divided(options.server_cores)
    load_before, began = os.getloadavg()[0], time.monotonic()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="perf-")))
        scenario = scenario_of(options)
        providers = stack.enter_context(simulated_providers(scenario, speech, directory, cores))
        session = Session(
            binary,
            speech,
            cores,
            providers.url,
            providers.pid,
            _say,
            options.seconds or (SHORT_SECONDS if options.short else 30.0),
            options.barge_in_every,
        )
        knee, soak, losses, ratio = None, None, None, None
        if not options.only_stock:
            knee, soak, losses = _steps(options, session, providers, directory)
        if options.stock or options.only_stock:
            ratio = _stock(options, session, providers.url, directory)
        counts = provider_stats(providers.url).counts
    steps = session.steps
    judged = _judged(options, session) if options.gate else []
    found = report.document(
        steps,
        conditions=_conditions(options, scenario, cores, load_before, time.monotonic() - began),
        knee=knee,
        judged=judged,
        ratio=ratio,
        soak=soak,
        losses=losses,
        providers=counts,
    )
    print(report.table(steps))
    _print_rest(found, judged)
    _write(options, found, steps)
    return 0 if all(bar.kept for bar in judged) else EXIT_GATE


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def scenario_of(options: argparse.Namespace) -> Scenario:
    """What the providers do: a preset or a file, and single delays over it."""
    scenario = PRESETS[options.providers]
    if options.scenario is not None:
        scenario = Scenario.from_document(orjson.loads(options.scenario.read_bytes()))
    document = scenario.document()
    for stage in ("stt", "llm", "tts"):
        if (given := getattr(options, f"{stage}_ms")) is not None:
            document[stage]["latency"] = given
    return Scenario.from_document(document)


def target_of(text: str) -> Server:
    """A server at an address; exits where it is none."""
    scheme, _, rest = text.partition(":")
    user, _, host = rest.partition("@")
    if scheme != "sip" or not user or not host:
        raise SystemExit(f"{text!r} is not sip:USER@IP:PORT")
    address = host if ":" in host.rpartition("]")[2] else f"{host}:5060"
    return Server(text, ("--server", address, "--number", user))


def _steps(
    options: argparse.Namespace, session: Session, providers: SimulatedProviders, directory: Path
) -> tuple[int | None, dict[str, float] | None, dict[str, float | None] | None]:
    """Every shape that was asked for, on the server."""
    with ExitStack() as stack:
        if options.target:
            server = target_of(options.target)
        else:
            turn_taking = {
                name: value
                for name in ("end_of_turn_ms", "speech_stop_ms")
                if (value := getattr(options, name)) is not None
            }
            if options.end_of_turn_ms is not None:
                # One wait for every turn, whatever its words say: the figure that is subtracted.
                turn_taking |= dict.fromkeys(
                    ("complete_wait_ms", "unfinished_wait_ms"), options.end_of_turn_ms
                )
            workers = options.workers
            if workers is None and worker_option():
                workers = options.server_cores
            server = stack.enter_context(
                our_server(
                    providers,
                    directory,
                    session.cores,
                    workers=workers,
                    turn_taking=turn_taking,
                    live_stt=options.live_stt,
                )
            )
            # What a server does once after its start is not the first step's.
            time.sleep(SETTLE_S)
        for calls in ramp_of(options):
            session.at(server, calls)
        knee = session.knee(server, (*gate.SOUND, *gate.FAST)) if options.knee else None
        soak = None
        if options.soak:
            _, soak = session.soak(server, options.calls or 50, options.soak, options.turns)
        if options.burst:
            session.burst(server, options.burst, options.burst_seconds, BURST_HOLD_MS)
        losses = None
        if options.losses:
            losses = session.losses(server, options.calls or GATE_CALLS, options.losses)
    return knee, soak, losses


def ramp_of(options: argparse.Namespace) -> Sequence[int]:
    """The steps before anything else; none where another shape is all that was asked for."""
    if options.ramp:
        return tuple(options.ramp)
    if options.soak or options.burst or options.losses:
        return ()
    if options.calls:
        return (options.calls,)
    if options.short:
        return SHORT_RAMP
    return (GATE_CALLS,) if options.gate else DEFAULT_RAMP


def _stock(options: argparse.Namespace, session: Session, url: str, directory: Path) -> dict[str, float]:
    ours = [step for step in session.steps if step.shape in {"ramp", "knee"}]
    with stock_server(url, directory, session.cores) as server:
        theirs = [session.at(server, calls) for calls in options.stock_ramp]
    return report.ratios(ours, theirs)


def _judged(options: argparse.Namespace, session: Session) -> list[gate.Judged]:
    """The gate, on the step with the gate's number of calls, or the next smaller one."""
    bars = gate.SHORT if options.short else gate.LAUNCH
    ramp = [step for step in session.steps if step.shape == "ramp" and not step.server.startswith("stock")]
    if not ramp:
        raise SystemExit("--gate judges a ramp; there is none")
    within = [step for step in ramp if step.calls <= GATE_CALLS] or ramp
    return gate.judge(max(within, key=lambda step: step.calls), bars)


def _conditions(
    options: argparse.Namespace, scenario: Scenario, cores: Cores, load_before: float, took_s: float
) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": platform.processor() or platform.machine(),
        "processors_server": list(cores.server),
        "processors_others": list(cores.others),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "took_s": round(took_s, 1),
        "providers": scenario.document(),
        "end_of_turn_ms": options.end_of_turn_ms,
        "workers": options.workers,
        "live_stt": options.live_stt,
        "python": platform.python_version(),
    }


def _print_rest(found: dict[str, Any], judged: Sequence[gate.Judged]) -> None:
    if found["knee"] is not None:
        print(f"\nknee: {found['knee']} calls at a time")
    for title in ("ratio_to_stock", "soak", "losses"):
        if found[title]:
            known = {name: value for name, value in found[title].items() if value is not None}
            print(f"\n{title}: " + ", ".join(f"{name} {value:g}" for name, value in known.items()))
    if judged:
        print("\n" + report.gate_table(judged))


def _write(options: argparse.Namespace, found: dict[str, Any], steps: Sequence[Any]) -> None:
    written = []
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        written.append(options.json)
    if options.plot is not None:
        options.plot.write_text(svg(steps))
        written.append(options.plot)
    if options.results:
        written += report.write(found, steps, RESULTS, datetime.now(UTC).date())
    for path in written:
        _say(f"written: {path}")
