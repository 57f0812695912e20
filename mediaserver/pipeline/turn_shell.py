"""The shell around the turn-taking core: the media link's events and the transcripts go in, the pipeline is told what to do.

What must be quick or exact is done at once, where the event is taken: holding the playout, and cutting the utterance that is
to be transcribed. What Pipecat has to do is done in order by one task, which waits where the next step needs the last one to
have gone through the pipeline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    TranscriptionFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMUserAggregator
from pipecat.utils.time import time_now_iso8601

from mediaserver.pipeline.hearing import Hearing
from mediaserver.pipeline.output import EngineOutput
from mediaserver.pipeline.turn_model import TurnModel
from mediaserver.pipeline.turn_strategies import CallerTurnFrame, CallerTurnStart, CallerTurnStop
from mediaserver.providers.utterance import BYTES_PER_MS, Utterance
from mediaserver.turns import TurnParams, TurnTaker
from mediaserver.turns.events import (
    Action,
    AskModel,
    AskWhetherThere,
    BeginTurn,
    Confirm,
    Discard,
    Event,
    HangUp,
    Hold,
    Interrupt,
    ModelJudged,
    Resume,
    SayGoodbye,
    Speculate,
    Transcribe,
    Transcribed,
    Why,
    Withdraw,
)

MAX_UTTERANCE_BYTES = 60_000 * BYTES_PER_MS
"""Twice what the transport cuts speech to; past it the oldest goes."""
MAX_EVENT_AGE_MS = 1_000
LATE_MS = 20
CATCH_UP_S = 0.005
"""A timer that is later than that waits so long for what is on its way from the engine."""
MAX_ACTIONS = 128
"""What may wait for the pipeline: a turn has three or four."""
MAX_TRANSCRIPTIONS = 4
"""Of one call at a time; past it the oldest is given up."""
APOLOGY_AFTER_S = 1.0
"""After a transcription has failed: the next provider is mostly quicker, and the caller may be in the middle of a sentence."""
PASSES_THROUGH = (InterruptionFrame, EagerEndOfTurnCancelFrame)
"""What the pipeline reports to `TurnShell.frame_passed`."""
PASSAGE_TIMEOUT_S = 0.4
"""An interruption goes through the pipeline within a tick or two of the engine."""


class Host(Protocol):
    """What the shell asks of the call's pipeline."""

    async def say_still_there(self) -> None:
        """Ask the silent caller."""
        ...

    async def say_goodbye(self) -> None:
        """Say goodbye."""
        ...

    async def finish(self) -> None:
        """End the call when what is being said has been heard."""
        ...

    def answer_due(self, text: str) -> None:
        """A turn is over with these words: what goes out next answers it."""
        ...

    def turn_began(self) -> None:
        """The caller has the floor."""
        ...

    def stuck(self) -> None:
        """The pipeline does nothing any more: end the call."""
        ...

    def answer_kept(self) -> None:
        """An answer that was begun early counts: do what it wants done."""
        ...

    def answer_dropped(self) -> None:
        """An answer that was begun early was never given."""
        ...


class TurnShell:
    """The turn-taking of one call. `connect` it before the first event."""

    def __init__(self, params: TurnParams, context: LLMContext, model: TurnModel | None) -> None:
        self.taker = TurnTaker(params)
        self.start = CallerTurnStart()
        self.stop = CallerTurnStop()
        self._context = context
        self._model = model
        self._provisional: LLMContext | None = None
        """The conversation with a turn that may not be over: what a speculation answers."""
        self._confirmed: LLMContext | None = None
        self._audio = bytearray()
        """The present utterance."""
        self._utterance = 0
        self._said_bytes = 0
        """Of the present utterance; past `MAX_UTTERANCE_BYTES` that is more than is kept."""
        self._asked_pcm: tuple[int, bytes] = (0, b"")
        """What was transcribed last, for the turn model."""
        self._transcriptions: dict[int, asyncio.Task[None]] = {}
        self._judgements: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._told_ms = 0
        """The core's clock."""
        self._excused_ms: int | None = None
        """The deadline that was late and has been waited with."""
        self._actions: asyncio.Queue[Action] = asyncio.Queue(MAX_ACTIONS)
        self._worker: asyncio.Task[None] | None = None
        self._passed = asyncio.Event()
        self._hearing: Hearing
        self._aggregator: LLMUserAggregator
        self._output: EngineOutput
        self._host: Host

    def connect(
        self, *, hearing: Hearing, aggregator: LLMUserAggregator, output: EngineOutput, host: Host
    ) -> None:
        """Give the shell what it acts on."""
        self._hearing = hearing
        self._aggregator = aggregator
        self._output = output
        self._host = host

    def run(self) -> None:
        """Begin to act; call when the pipeline has started."""
        self._worker = asyncio.get_running_loop().create_task(self._act(), name="call-turns")

    async def close(self) -> None:
        """End what is under way, and wait for it."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._transcriptions.values(), *self._judgements]
        tasks += [self._worker] if self._worker is not None else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # What it is told.

    def tell(self, event: Event, at_us: int | None = None) -> None:
        """Something happened just now, or when the engine says it did: a loop that was held up learns of it late."""
        now_ms = _now_ms()
        at_ms = now_ms if at_us is None else at_us // 1000
        if not now_ms - MAX_EVENT_AGE_MS < at_ms <= now_ms:
            # The engine's clock is this machine's; another clock's times say nothing about now.
            at_ms = now_ms
        self._told_ms = max(self._told_ms, at_ms)
        self._perform(self.taker.handle(event, self._told_ms))

    def add_audio(self, pcm: bytes) -> None:
        """The next audio of the present utterance."""
        self._audio += pcm
        self._said_bytes += len(pcm)
        self._hearing.hear(self._utterance, pcm, self._said_bytes)
        if (excess := len(self._audio) - MAX_UTTERANCE_BYTES) > 0:
            del self._audio[:excess]

    def begin_audio(self, pcm: bytes) -> None:
        """The first audio of an utterance."""
        self._drop_audio()
        self.add_audio(pcm)

    def _drop_audio(self) -> None:
        """What comes next is another utterance."""
        self._audio.clear()
        self._utterance += 1
        self._said_bytes = 0

    def frame_passed(self) -> None:
        """An interruption or a withdrawal has reached the end of the pipeline."""
        self._passed.set()

    def is_wanted(self, context: LLMContext) -> bool:
        """Whether an answer to this conversation may be heard, now or when the turn is over."""
        return context is self._context or context is self._provisional or context is self._confirmed

    def is_settled(self, context: LLMContext) -> bool:
        """Whether an answer to this conversation may have consequences already."""
        return context is self._context or context is self._confirmed

    # Time.

    def _poll(self) -> None:
        self._timer = None
        now_ms, due_ms = _now_ms(), self.taker.next_deadline_ms
        if due_ms is not None and due_ms != self._excused_ms and now_ms - due_ms > LATE_MS:
            # The loop was held up: what was heard meanwhile may be waiting, and no silence has passed then.
            self._excused_ms = due_ms
            self._timer = asyncio.get_running_loop().call_later(CATCH_UP_S, self._poll)
            return
        self._told_ms = max(self._told_ms, now_ms)
        self._perform(self.taker.poll(self._told_ms))

    def _perform(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Hold():
                    self._output.hold()
                case Resume():
                    self._drop_audio()
                    self._output.release_hold()
                case Transcribe():
                    self._transcribe(action.number)
                case Withdraw():
                    if (task := self._transcriptions.get(action.number)) is not None:
                        task.cancel()
                case AskModel():
                    self._ask_model(action.number)
                case _:
                    self._put(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self.taker.next_deadline_ms
        if due_ms is not None:
            # A millisecond more, for the clock's own rounding.
            delay_s = max(0, due_ms - _now_ms() + 1) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._poll)

    def _put(self, action: Action) -> None:
        """Queue an action. Where that many wait the pipeline is stuck, and no conversation comes of it any more."""
        try:
            self._actions.put_nowait(action)
        except asyncio.QueueFull:
            self._host.stuck()

    # Words.

    def _transcribe(self, number: int) -> None:
        utterance = Utterance(self._utterance, bytes(self._audio), self._said_bytes)
        self._asked_pcm = (number, utterance.pcm)
        while len(self._transcriptions) >= MAX_TRANSCRIPTIONS:
            oldest = min(self._transcriptions)
            self._transcriptions.pop(oldest).cancel()
            logger.warning("transcription {} given up: {} are outstanding", oldest, MAX_TRANSCRIPTIONS)
        task = asyncio.get_running_loop().create_task(
            self._words_of(number, utterance), name=f"transcription-{number}"
        )
        self._transcriptions[number] = task
        task.add_done_callback(lambda _: self._transcriptions.pop(number, None))

    async def _words_of(self, number: int, utterance: Utterance) -> None:
        text = ""
        apology: Frame | None = None
        apologising: asyncio.Task[None] | None = None
        try:
            async for frame in self._hearing.words_of(utterance):
                if isinstance(frame, TranscriptionFrame):
                    text = frame.text
                elif frame is not None:
                    apology = frame
                    apologising = asyncio.create_task(self._apologise(frame), name="apology")
            if apology is not None and apologising is not None and not text and apologising.cancel():
                # Nobody could tell what was said: she is the one who has to speak.
                await self._hearing.push_frame(apology)
        except Exception:  # noqa: BLE001 - one utterance is lost, the call goes on
            logger.exception("transcription failed")
        finally:
            if apologising is not None:
                apologising.cancel()
        self.tell(Transcribed(number, text))

    async def _apologise(self, apology: Frame) -> None:
        """To a caller who waits for so long that he wonders. Who goes on speaking withdraws what the words were for."""
        await asyncio.sleep(APOLOGY_AFTER_S)
        await self._hearing.push_frame(apology)

    def _ask_model(self, number: int) -> None:
        asked, pcm = self._asked_pcm
        if self._model is None or asked != number:
            return
        task = asyncio.get_running_loop().create_task(self._judgement_of(self._model, number, pcm))
        self._judgements.add(task)
        task.add_done_callback(self._judgements.discard)

    async def _judgement_of(self, model: TurnModel, number: int, pcm: bytes) -> None:
        probability = await model.probability(pcm)
        if probability is not None:
            self.tell(ModelJudged(number, probability))

    # What the pipeline has to do, in order.

    async def _act(self) -> None:
        while True:
            action = await self._actions.get()
            try:
                await self._done(action)
            except Exception:  # noqa: BLE001 - the next turn may still succeed; the failure is logged whole
                logger.exception("turn-taking could not do {}", type(action).__name__)

    async def _done(self, action: Action) -> None:
        match action:
            case BeginTurn() | Interrupt():
                self._host.turn_began()
                await self._passing(self.start.begin)
            case Speculate():
                await self._begin_answer(action.text)
            case Discard():
                self._provisional = None
                self._host.answer_dropped()
                await self._output.drop_speech()
                await self._passing(self.stop.withdraw)
            case Confirm():
                await self._confirm(action)
            case AskWhetherThere():
                self._output.open_gate()
                await self._host.say_still_there()
            case SayGoodbye():
                if action.why is Why.TIME_UP:
                    await self._passing(self._aggregator.broadcast_interruption)
                self._output.open_gate()
                await self._host.say_goodbye()
            case HangUp():
                await self._host.finish()
            case _:
                pass

    async def _passing(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send something through the pipeline and wait until it has come to its end, so that nothing is left before it."""
        self._passed.clear()
        await send()
        try:
            await asyncio.wait_for(self._passed.wait(), PASSAGE_TIMEOUT_S)
        except TimeoutError:
            logger.warning("an interruption has not gone through the pipeline in time")

    async def _begin_answer(self, text: str) -> None:
        """Ask for the answer to a turn that may not be over; the conversation itself does not know of it."""
        provisional = LLMContext(
            messages=[*self._context.messages, {"role": "user", "content": text}],
            tools=self._context.tools,
            tool_choice=self._context.tool_choice,
        )
        self._provisional = provisional
        self._output.hold_speech()
        await self._aggregator.push_frame(LLMContextFrame(context=provisional, speculation=True))

    async def _confirm(self, confirmed: Confirm) -> None:
        self._drop_audio()
        if confirmed.text:
            self._host.answer_due(confirmed.text)
        if confirmed.speculated:
            self._confirmed, self._provisional = self._provisional, None
            self._host.answer_kept()
            await self._output.release_speech()
        else:
            self._output.open_gate()
        await self._aggregator.queue_frame(
            CallerTurnFrame(confirmed.text, "caller", time_now_iso8601(), speculated=confirmed.speculated)
        )
        await self.stop.wait_for_end()


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
