"""The turn model: one for all calls, left out where there is no time or it does not work."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
from numpy.typing import NDArray

from mediaserver.pipeline.turn_model import MAX_MS, MAX_WAITING, Predict, TurnModel, smart_turn

PCM = bytes(16_000 * 2)


async def test_it_is_loaded_once_and_rests_between_questions() -> None:
    loaded: list[int] = []
    lengths: list[int] = []

    def load() -> Predict:
        loaded.append(1)

        def predict(audio: NDArray[np.float32]) -> float:
            lengths.append(len(audio))
            return 0.75

        return predict

    seconds = iter([0.0, 0.0, 0.15, 0.7, 0.76, 0.8, 0.95])
    model = TurnModel(load, lambda: next(seconds))
    assert await model.probability(PCM) == 0.75
    # It took 0.15 s, a fifth of a processor is its share: until 0.75 s there is no time for another.
    assert await model.probability(PCM) is None
    assert await model.probability(PCM * 20) == 0.75
    model.close()
    assert loaded == [1]
    assert lengths == [16_000, MAX_MS * 16]
    assert (model.asked, model.skipped) == (2, 1)


async def test_a_full_queue_answers_nobody_more() -> None:
    go = threading.Event()

    def predict(_: NDArray[np.float32]) -> float:
        go.wait(10)
        return 0.5

    model = TurnModel(lambda: predict)
    asked = [asyncio.create_task(model.probability(PCM)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    assert await model.probability(PCM) is None
    assert (model.asked, model.skipped) == (MAX_WAITING, 1)
    go.set()
    assert await asyncio.gather(*asked) == [0.5] * MAX_WAITING
    model.close()


async def test_a_model_that_does_not_work_is_left_out() -> None:
    def load() -> Predict:
        raise RuntimeError("no model file")

    model = TurnModel(load)
    assert await model.probability(PCM) is None
    assert await model.probability(PCM) is None
    assert (model.asked, model.skipped) == (1, 2)
    model.close()


async def test_nothing_is_asked_about_no_audio() -> None:
    model = TurnModel()
    assert await model.probability(b"") is None
    assert model.asked == 0


def test_the_model_that_pipecat_ships_judges() -> None:
    probability = smart_turn()(np.zeros(16_000, dtype=np.float32))
    assert 0.0 <= probability <= 1.0
