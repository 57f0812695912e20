"""A node that is told to stop, or to replace its workers, while calls are up."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mediaserver.cli import EXIT_USAGE, main
from mediaserver.softphone.report import CallReport
from mediaserver.softphone.speech import Utterance
from perf.simulators import Script
from tests.sim.node import RunningNode, running_node

AUDIBLE = 500
TONE_ABOVE = 0.8
"""The share of a tone's samples that exceed `AUDIBLE`, at least."""
ANSWER = "We open at eight. We close at six."


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is the synchronisation
            await asyncio.sleep(0.005)


def _calling(running: RunningNode, question: Utterance) -> asyncio.Task[CallReport]:
    return asyncio.create_task(running.call(question))


@pytest.mark.parametrize("workers", [0, 1])
async def test_calls_that_are_up_go_on_and_new_ones_are_told_to_try_again(
    tmp_path: Path, question: Utterance, workers: int
) -> None:
    script = Script(transcripts=["When are you open?"], replies=[ANSWER])
    async with running_node(tmp_path, script=script, workers=workers, drain_s=60) as running:
        calling = _calling(running, question)
        await _until(lambda: running.node.gate.snapshot().in_use == 1)
        running.node.request_stop()
        refused = await running.call(question)
        report = await calling
    assert not refused.answered
    assert "503" in refused.summary()
    assert report.success, report


async def test_past_the_deadline_the_call_is_ended_with_a_farewell(
    tmp_path: Path, question: Utterance
) -> None:
    recording = tmp_path / "call.wav"
    async with running_node(tmp_path, workers=1, drain_s=0) as running:
        calling = asyncio.create_task(running.call(question, quiet_ms=10_000, record=recording))
        await _until(lambda: any(call.journal.is_heard for call in running.node.workers.calls))
        running.node.request_stop()
        report = await calling
    assert report.answered
    assert not report.exchanges
    with wave.open(str(recording)) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")[::2]
        rate_hz = file.getframerate()
    # The goodbye is a tone of 60 ms for each of its letters, after the first words of the greeting; nothing comes after it.
    audible_s = np.count_nonzero(np.abs(heard.astype(int)) > AUDIBLE) / rate_hz
    assert audible_s > 0.8 * len("Thank you for calling Test Bakery. Goodbye!") * 0.06 * TONE_ABOVE


async def test_workers_are_replaced_one_by_one_and_calls_stay(tmp_path: Path, question: Utterance) -> None:
    script = Script(transcripts=["When are you open?"], replies=[ANSWER])
    async with running_node(tmp_path, script=script, workers=1) as running:
        pool = running.node.workers
        (former,) = pool.pids
        calling = _calling(running, question)
        await _until(lambda: bool(pool.calls))
        running.node.request_reload()
        await _until(lambda: len(pool.pids) == 2)
        report = await calling
        assert report.success, report
        again = await running.call(question)
        assert again.success, again
        await _until(lambda: former not in pool.pids and len(pool.pids) == 1)
        assert pool.counters.takeovers == 0
        assert sum(pool.counters.lost.values()) == 0


def test_reload_without_a_node_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDIASERVER_DATA_DIR", str(tmp_path))
    assert main(["reload"]) == EXIT_USAGE
    assert f"no node runs with the data folder {tmp_path}" in capsys.readouterr().err
