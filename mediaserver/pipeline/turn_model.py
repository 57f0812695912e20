"""The smart-turn model that Pipecat ships, once per process: asked only where silence and words leave doubt.

One inference costs some 150 ms of a processor, so that it is the first thing that a busy machine leaves out: one thread of
low priority, a short queue, a share of one processor that it may have, and whoever finds no room is told nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from loguru import logger
from numpy.typing import NDArray

MAX_WAITING = 4
"""Calls whose question waits or is being answered; past it, no answer."""
MAX_SHARE = 0.2
"""Of one processor."""
NICENESS = 10
MAX_MS = 8_000
"""The model hears the end of what was said."""
SAMPLES_PER_MS = 16

Predict = Callable[[NDArray[np.float32]], float]
"""From 16 kHz audio within -1 to 1 to the probability that the speaker has finished."""


def smart_turn() -> Predict:
    """Load Pipecat's bundled model."""
    from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3

    analyzer = LocalSmartTurnAnalyzerV3(sample_rate=16_000)
    # The one entry that takes audio as it is; Pipecat's public ones keep a session's state, and there is none here.
    return lambda audio: float(analyzer._predict_endpoint(audio)["probability"])


class TurnModel:
    """One model for all calls of the process, loaded when it is first needed."""

    def __init__(
        self, load: Callable[[], Predict] = smart_turn, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._clock_s = clock_s
        self._predict: Predict | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._is_broken = False
        self._rests_until_s = 0.0
        self.asked = 0
        self.skipped = 0
        """Questions that were not answered: too many others waited, or the model does not work."""

    async def probability(self, pcm: bytes) -> float | None:
        """The probability that the speaker of this 16 kHz PCM has finished; None when there is no time to find out."""
        rests = self._clock_s() < self._rests_until_s
        if self._waiting >= MAX_WAITING or rests or self._is_broken or not pcm:
            self.skipped += 1
            return None
        if self._executor is None:
            self._executor = ThreadPoolExecutor(
                max_workers=1, thread_name_prefix="turn-model", initializer=_give_way
            )
        self._waiting += 1
        self.asked += 1
        answer = asyncio.get_running_loop().run_in_executor(self._executor, self._judge, pcm)
        # The place is given back when the thread is done, not when the one who asked has gone.
        answer.add_done_callback(self._given_back)
        try:
            return await asyncio.shield(answer)
        except Exception as error:  # noqa: BLE001 - whatever the model's library raises: turns go on without it
            logger.error("the turn model does not work and is left out: {}", error)
            self._is_broken = True
            self.skipped += 1
            return None

    def close(self) -> None:
        """End the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _given_back(self, answer: asyncio.Future[float]) -> None:
        self._waiting -= 1
        if not answer.cancelled():
            answer.exception()  # Seen, also where nobody waits any more.

    def _judge(self, pcm: bytes) -> float:
        if self._predict is None:
            self._predict = self._load()
        audio = np.frombuffer(pcm[-MAX_MS * SAMPLES_PER_MS * 2 :], dtype=np.int16).astype(np.float32)
        audio /= 32_768
        began_s = self._clock_s()
        probability = self._predict(audio)
        ended_s = self._clock_s()
        self._rests_until_s = ended_s + (ended_s - began_s) * (1 / MAX_SHARE - 1)
        return probability


def _give_way() -> None:
    """Lower this thread's priority, where threads have one of their own (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
