"""From the callers' lines to figures, the gate, the table, the plot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest

from perf.harness import command, gate, report
from perf.harness.figures import Figures, Spent, Spread, figures
from perf.harness.generator import Heard, Load
from perf.harness.latency import Latency
from perf.harness.plot import curves, nice, svg
from perf.harness.processes import Cores, Usage, descendants, usage
from perf.harness.servers import Server
from perf.harness.session import Session, growth

SPREAD = {"samples": 9, "p50_ms": 0.05, "p95_ms": 0.1, "p99_ms": 0.2, "p99_9_ms": 3.0, "max_ms": 4.0}


def turn(call: int, latency_ms: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "event": "turn",
        "call": call,
        "turn": 1,
        "utterance": "friday",
        "at_ms": 5_000.0,
        "spoken_ms": 1_200.0,
        "latency_ms": latency_ms,
        "false_ends": 0,
        "barge_in": False,
        "silenced_ms": None,
        "talked_over": False,
        **changes,
    }


def ended(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "call",
        "call": number,
        "outcome": "completed",
        "status": 200,
        "setup_ms": 10.0 + number,
        "greeting_ms": 20.0,
        "received": 990,
        "lost": 10,
        **changes,
    }


def heard(*lines: dict[str, Any]) -> Heard:
    found = Heard()
    begin = {"event": "begin", "at_ms": 2_000.0, "call_s": 4.0, "up": 2, "placed": 2}
    end = {"event": "end", "at_ms": 12_000.0, "call_s": 24.0, "up": 2, "placed": 2}
    summary = {
        "event": "summary",
        "at_ms": 13_000.0,
        "spacing": SPREAD,
        "lateness": SPREAD,
        "cpu_ms": 1_300.0,
    }
    marks: list[str] = []
    for line in (begin, *lines, end, summary):
        found.take(orjson.loads(orjson.dumps(line)), marks.append)
    assert marks == ["begin", "end"]
    return found


def step(*lines: dict[str, Any], calls: int = 2, server: str = "ours", shape: str = "ramp") -> Figures:
    spent = Spent({"edge.media": 0.02, "edge.rest": 0.08}, 0.1, 1.0, 0.2, 100.0, 103.0, Spread.of([1.0]))
    paused = frozenset({"wedding"})
    return figures(heard(*lines), spent, server=server, shape=shape, calls=calls, paused=paused)


GOOD = (ended(0), ended(1), turn(0, 300.0), turn(1, 320.0))


def test_costs_are_per_second_of_call() -> None:
    found = step(*GOOD)
    assert found.call_s == 20.0
    assert found.lasted_s == 10.0
    assert found.cpu_ms == {"edge.media": 1.0, "edge.rest": 4.0}
    assert found.cpu_ms_whole == 5.0
    assert found.waited_ms == 5.0
    assert found.providers_cpu_ms == 10.0
    assert found.memory_mb_per_call == 1.5
    assert found.call_s_per_turn == 10.0


def test_latency_leaves_out_what_is_something_else() -> None:
    found = step(
        *GOOD,
        turn(0, 900.0, false_ends=1, utterance="wedding"),
        turn(0, 310.0, utterance="wedding"),
        turn(0, 700.0, barge_in=True, silenced_ms=120.0),
        turn(1, None),
        turn(1, None, false_ends=1, utterance="wedding", talked_over=True),
        turn(1, 5.0, at_ms=1_000.0),
    )
    assert found.latency_ms.samples == 3
    assert found.latency_ms.max == 320.0
    assert found.latency_paused_ms.samples == 1
    assert found.false_ends_percent == pytest.approx(100 * 2 / 6, abs=0.01)
    assert found.false_ends_by_utterance == {"wedding": "2/3"}
    assert found.turns_unanswered == 1
    assert found.silenced_ms.p50 == 120.0
    assert found.turns == 7, "what ended before the time that counts is not in it"


def test_every_call_that_did_not_end_well_is_a_failed_one() -> None:
    found = step(
        ended(0),
        ended(1, outcome="refused", status=503, setup_ms=None, greeting_ms=None),
        ended(2, outcome="server hung up"),
        ended(3, outcome="cut off"),
    )
    assert found.failed == 3
    assert found.outcomes == {"completed": 1, "refused 503": 1, "server hung up": 1, "cut off": 1}
    assert found.setup_ms.samples == 3
    assert found.packets_lost_percent == 1.0


def test_the_gate_asks_for_every_bar() -> None:
    good = step(ended(0, lost=0), ended(1, lost=0), *GOOD[2:])
    assert gate.passes(good, gate.LAUNCH)
    assert gate.passes(good, gate.SHORT)
    for worse in (
        turn(0, 600.0),
        turn(0, None),
        turn(0, 300.0, false_ends=1),
        ended(2, outcome="unanswered"),
        ended(2, greeting_ms=51.0),
        ended(2, lost=100),
    ):
        assert not gate.passes(step(ended(0, lost=0), ended(1, lost=0), *GOOD[2:], worse), gate.LAUNCH), worse


def test_what_nobody_measured_is_not_kept() -> None:
    silent = step(ended(0, lost=0))
    missed = {judged.name for judged in gate.judge(silent, gate.LAUNCH) if not judged.kept}
    assert missed == {"turn latency p50", "turn latency p95", "turn latency p99"}


def test_the_document_is_json_with_the_keys_of_the_docs() -> None:
    steps = [step(*GOOD)]
    judged = gate.judge(steps[0], gate.LAUNCH)
    found = orjson.loads(
        orjson.dumps(
            report.document(steps, conditions={"at": "now"}, knee=3, judged=judged, ratio={"x": 2.0})
        )
    )
    docs = (Path(report.__file__).parent / "README.md").read_text()
    for key in {*found, *found["steps"][0], *found["gate"][0], *SPREAD} - set(SPREAD):
        assert f"`{key}`" in docs, key


def test_the_table_has_a_column_for_each_step() -> None:
    text = report.table([step(*GOOD), step(*GOOD, calls=7)])
    assert any(line.split() == ["calls", "2", "7"] for line in text.splitlines())
    assert "MISSED" in report.gate_table(gate.judge(step(*GOOD), gate.LAUNCH)), "1 % of the packets are lost"


def test_ratios_are_the_baselines_best_to_ours_with_the_most_calls() -> None:
    ours = [step(ended(0), turn(0, 1.0), calls=1), step(*GOOD, calls=3)]
    ratios = report.ratios(ours, [step(ended(0), turn(0, 930.0), server="stock")])
    assert ratios == {"cpu_ms_whole": 1.0, "latency_p50_ms": 3.1, "memory_mb_per_call": 1.5}
    assert report.ratios([], ours) == {}


def test_the_plot_is_an_svg_of_what_was_measured() -> None:
    steps = [step(*GOOD, calls=calls) for calls in (10, 25)] + [step(*GOOD, calls=5, server="<stock>")]
    picture = ElementTree.fromstring(svg(steps))
    lines = picture.iter("{http://www.w3.org/2000/svg}polyline")
    assert len(list(lines)) == 2 * (3 + 1 + 1)
    assert ElementTree.fromstring(svg([])) is not None
    (curve,) = curves(steps[:2], {"p50": lambda s: s.latency_ms.p50})
    assert curve.points == ((10.0, 300.0), (25.0, 300.0))
    assert [nice(most) for most in (0.3, 1, 1.5, 4, 7, 99, 101, 450)] == [0.5, 1, 2, 5, 10, 100, 200, 500]


def test_results_are_dated(tmp_path: Path) -> None:
    steps = [step(*GOOD)]
    paths = report.write(report.document(steps, conditions={}), steps, tmp_path, date(2026, 2, 3))
    assert [path.name for path in paths] == ["2026-02-03-harness.json", "2026-02-03-harness.svg"]
    assert orjson.loads(paths[0].read_bytes())["steps"][0]["calls"] == 2


class Endless(Session):
    """A server that carries so many calls and not one more."""

    carries = 0
    tried: tuple[int, ...] = ()

    def at(self, server: Server, calls: int, shape: str = "ramp") -> Figures:
        self.tried = (*self.tried, calls)
        lines = (ended(0, lost=0), turn(0, 300.0 if calls <= self.carries else 800.0))
        found = step(*lines, calls=calls, server=server.name, shape=shape)
        self.steps.append(found)
        return found


@pytest.mark.parametrize("carries", [0, 1, 9, 10, 63, 120, 2_000])
@pytest.mark.parametrize("ramp", [(), (10, 25, 50)])
def test_the_knee_is_found_to_a_tenth(carries: int, ramp: tuple[int, ...], tmp_path: Path) -> None:
    session = Endless(tmp_path, tmp_path, Cores((0,), (0,)), "", 0, print, 1.0)
    session.carries, server = carries, Server("s", ())
    for calls in ramp:
        session.at(server, calls)
    knee = session.knee(server, (*gate.SOUND, *gate.FAST))
    assert knee <= carries
    assert knee >= min(carries / 1.1 - 1, 1_600)
    assert len(set(session.tried)) == len(session.tried), "nothing is measured twice"
    assert len(session.tried) < 20


def test_memory_that_grows_is_told_from_memory_that_fills() -> None:
    filled = [(float(at), min(100.0, 60.0 + at)) for at in range(0, 600, 5)]
    assert growth(filled)["mb_per_hour"] == pytest.approx(0, abs=1)
    leaking = [(at, mb + at / 100) for at, mb in filled]
    assert growth(leaking)["mb_per_hour"] == pytest.approx(36, rel=0.05)
    assert growth(filled[:2]) == {}


def test_the_generator_is_told_what_is_set() -> None:
    assert Load(5, seconds=2.0).arguments()[:6] == ["--calls", "5", "--rate", "25.0", "--seconds", "2.0"]
    assert "--turns" not in Load(5).arguments()
    assert Load(5, turns=0).arguments().count("--turns") == 1


def test_a_family_of_processes_is_read_from_proc() -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'sum(range(3_000_000)); print(1, flush=True); input()'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print('up', flush=True); input(); child.communicate(b'\\n')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert len(descendants(process.pid)) == 1
    used = usage(process.pid)
    assert used.processes == 2
    assert set(used.cpu_s) == {"edge.rest", "other.rest"}
    assert sum(used.cpu_s.values()) > 0
    assert 5 < used.pss_mb < 200
    process.communicate("\n")
    later = Usage({"edge.rest": 3.0, "worker.rest": 1.0})
    assert later.since(Usage({"edge.rest": 1.0})) == {"edge.rest": 2.0, "worker.rest": 1.0}


def test_processors_are_divided_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1})
    assert Cores.divided() == Cores((1,), (3,))
    assert Cores.divided().apart
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert not Cores.divided().apart


@pytest.fixture
def parse() -> Callable[[str], Any]:
    import argparse

    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    return lambda line: parser.parse_args(["run", *line.split()])


def test_the_command_line_says_what_is_measured(parse: Callable[[str], Any]) -> None:
    ramp = command.ramp_of
    assert ramp(parse("")) == command.DEFAULT_RAMP
    assert ramp(parse("--gate")) == (100,)
    assert ramp(parse("--gate --short")) == command.SHORT_RAMP
    assert ramp(parse("--ramp 3,7 --knee")) == (3, 7)
    assert ramp(parse("--soak 1 --calls 20")) == ()
    scenario = command.scenario_of(parse("--providers zero --stt-ms 80,200"))
    assert scenario.stt.latency == Latency(80, 200)
    assert scenario.llm.latency == Latency()
    assert command.target_of("sip:+1555@127.0.0.1:5070").target == (
        "--server",
        "127.0.0.1:5070",
        "--number",
        "+1555",
    )
    assert command.target_of("sip:a@[::1]").target[1] == "[::1]:5060"
    for wrong in ("127.0.0.1", "sip:127.0.0.1", "tel:+1"):
        with pytest.raises(SystemExit):
            command.target_of(wrong)
