"""One call's pipeline: built from its tenant's context, run until the conversation or the media ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import EndFrame, Frame, LLMRunFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext, LLMContextMessage
from pipecat.processors.aggregators.llm_response_universal import (
    AssistantTurnStoppedMessage,
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
    UserTurnStoppedMessage,
)
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from mediaserver.journal import Next, Restored, Role
from mediaserver.media_link import MediaLink
from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache
from mediaserver.pipeline.dismantling import dismantle
from mediaserver.pipeline.hearing import Hearing
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.receptionist_replier import ReceptionistReplier
from mediaserver.pipeline.replying import Replying
from mediaserver.pipeline.services import (
    ProviderAccess,
    Spent,
    model_repliers,
    synthesizers,
    transcribers,
)
from mediaserver.pipeline.speaking import Speaking
from mediaserver.pipeline.transport import CALLER_RATE_HZ, CallTransport, TurnMeasured
from mediaserver.pipeline.turn_model import TurnModel
from mediaserver.pipeline.turn_shell import PASSES_THROUGH, TurnShell
from mediaserver.providers.key_watch import Tell
from mediaserver.providers.trail import ProviderEvent, ProviderTrail
from mediaserver.receptionist import Action, ConversationState, EndCall, Phrases, system_prompt
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import KEY_REPORTS_DROPPED
from mediaserver.telemetry.turns import TurnWaits
from mediaserver.turns import TurnCounters, TurnParams
from mediaserver.turns.events import Answered, FarewellDue
from tenancy import TenantContext
from tenancy.spending import Usage

TRANSCRIPT_MARGIN_MS = 2_000
"""A turn ends without what was not transcribed after the time that the whole chain may take, and this."""
GOODBYE_BEFORE_MS = 8_000
"""Before the longest that a call may take: time to say goodbye."""
PIPECAT_WATCHDOG_S = 86_400.0
"""Pipecat's own end of a turn never comes: ours always does, and knows why."""


class CallObserver(Protocol):
    """Told what happens in the conversation; implemented by the edge."""

    def caller_said(self, text: str) -> None:
        """A finished turn of the caller."""
        ...

    def receptionist_said(self, text: str, *, interrupted: bool) -> None:
        """What the caller heard of an answer."""
        ...

    def caller_speaking(self, *, active: bool) -> None:
        """The caller's turn began or ended."""
        ...

    def receptionist_speaking(self, *, active: bool) -> None:
        """The receptionist became audible or fell silent."""
        ...

    def sentence_begins(self, text: str) -> None:
        """The first packet of a sentence goes out."""
        ...

    def sentence_queued(self, text: str) -> None:
        """A sentence's audio is about to be queued."""
        ...

    def reply_queued(self) -> None:
        """The present reply, or phrase, has no further sentence."""
        ...

    def receptionist_state(self, state: str) -> None:
        """What the built-in receptionist will remember, as JSON, if its present reply is heard."""
        ...

    def turn_measured(self, turn: TurnMeasured) -> None:
        """The wire latency of an answered turn."""
        ...

    def action(self, action: Action) -> None:
        """Something that the receptionist wants done."""
        ...

    def media_ended(self, why: str) -> None:
        """The caller's media has stopped."""
        ...

    def turns_counted(self, counters: TurnCounters) -> None:
        """What became of the turns; once, when the conversation is over."""
        ...

    def spent(self, service: str, provider: str, usage: Usage) -> None:
        """What a request to a provider has used."""
        ...

    def provider_event(self, event: ProviderEvent) -> None:
        """A provider served, failed or was passed over."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineResources:
    """What the pipelines of a node share; nothing in it belongs to a tenant."""

    providers: ProviderAccess
    budgets: Budgets
    phrases: PhraseCache
    clock: Callable[[], datetime]
    meters: Meters = field(default_factory=Meters)
    """Of the process: the edge's own, or a worker's."""
    turn_model: TurnModel | None = None
    """Where there is none, words and silence alone decide."""

    def counting(self, spent: Spent) -> PipelineResources:
        """The same for one call, whose use of providers is told to ``spent``."""
        return replace(self, providers=replace(self.providers, spent=spent))

    def telling(self, tell: Tell) -> PipelineResources:
        """The same for one call, whose reports on keys go to ``tell``."""
        dropped = partial(self.meters.inc, KEY_REPORTS_DROPPED)
        return replace(self, providers=self.providers.telling(tell, dropped))


class CallPipeline:
    """The conversation of one call. Build it early: it costs milliseconds, and the greeting must not wait for it."""

    def __init__(
        self,
        tenant: TenantContext,
        link: MediaLink,
        resources: PipelineResources,
        observer: CallObserver,
        restored: Restored | None = None,
    ) -> None:
        """``restored``: what another pipeline of the same call left; `take_up` goes on from there."""
        resources = resources.counting(observer.spent)
        config = tenant.config
        trail = self._trail = ProviderTrail(observer.provider_event)
        access = resources.providers.leaving(trail)
        self._restored = restored or Restored()
        turns = config.turn_taking
        phrases = Phrases.of(config)
        self._tenant = tenant
        self._observer = observer
        self._greeting = config.greeting
        self._phrases = phrases
        context = LLMContext([_message(role, text) for role, text in self._restored.turns])
        self._turns = TurnShell(_turn_params(tenant, resources), context, resources.turn_model)
        self._transport = CallTransport(
            link, turns=self._turns, preroll_ms=turns.preroll_ms, observer=observer
        )
        waits = TurnWaits(self._transport.turn_clock, _now_us)
        self._receptionist = ReceptionistReplier(
            config,
            resources.clock,
            self._act,
            is_settled=self._turns.is_settled,
            on_state=observer.receptionist_state,
            state=ConversationState.from_json(self._restored.receptionist)
            if self._restored.receptionist
            else None,
        )
        replying = Replying(
            (
                *model_repliers(tenant.llm, access, system_prompt(config, resources.clock())),
                self._receptionist,
            ),
            resources.budgets,
            access.care,
            apology=phrases.one_moment,
            failure=phrases.failure,
            waits=waits,
            is_wanted=self._turns.is_wanted,
        )
        hearing = Hearing(
            transcribers(tenant.stt, access),
            resources.budgets,
            access.care,
            apology=phrases.one_moment,
            waits=waits,
        )
        aggregators = self._aggregators(context)
        self._hearing = hearing
        self._worker = _worker(
            self._transport.input(),
            hearing,
            aggregators.user(),
            replying,
            Speaking(
                synthesizers(tenant.tts, access, config.voice.name, config.voice.speed),
                resources.budgets,
                access.care,
                resources.phrases,
                owner=tenant.tenant_id,
                phrases_of=tenant.phrase_voice,
                voice=config.voice.name,
                speed=config.voice.speed,
                apology=phrases.one_moment,
                failure=phrases.failure,
                waits=waits,
            ),
            self._transport.output(),
            aggregators.assistant(),
        )
        self._turns.connect(
            hearing=hearing, aggregator=aggregators.user(), output=self._transport.output(), host=self
        )
        self._worker.set_reached_downstream_filter(PASSES_THROUGH)
        self._worker.add_event_handler("on_frame_reached_downstream", self._frame_passed)
        # Before the ACK: the caller's first sentence must not wait for a handshake.
        access.warm(tenant)
        # One runner per call: a shared one with auto_end=False keeps every finished worker alive.
        self._over = False
        self._runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)

    def _aggregators(self, context: LLMContext) -> LLMContextAggregatorPair:
        pair = LLMContextAggregatorPair(
            context,
            user_params=LLMUserAggregatorParams(
                audio_idle_timeout=0,
                user_turn_stop_timeout=PIPECAT_WATCHDOG_S,
                user_idle_timeout=0,
                user_turn_strategies=UserTurnStrategies(start=[self._turns.start], stop=[self._turns.stop]),
            ),
        )

        async def caller_speaks(_: object, __: object) -> None:
            self._observer.caller_speaking(active=True)

        async def user_turn(_: object, __: object, ___: UserTurnStoppedMessage) -> None:
            self._observer.caller_speaking(active=False)

        async def assistant_turn(_: object, message: AssistantTurnStoppedMessage) -> None:
            if message.content:
                self._observer.receptionist_said(message.content, interrupted=message.interrupted)

        pair.user().add_event_handler("on_user_turn_started", caller_speaks)
        pair.user().add_event_handler("on_user_turn_stopped", user_turn)
        pair.assistant().add_event_handler("on_assistant_turn_stopped", assistant_turn)
        return pair

    async def _frame_passed(self, _: object, __: Frame) -> None:
        self._turns.frame_passed()

    def _act(self, action: Action) -> None:
        if isinstance(action, EndCall):
            # The call ends when what is being said has been heard. A caller who speaks meanwhile has more to say.
            self._turns.tell(FarewellDue())
        self._observer.action(action)

    # What the turn-taking asks for (Host).

    async def say_still_there(self) -> None:
        """Ask the silent caller."""
        await self._worker.queue_frame(TTSSpeakFrame(self._phrases.still_there))

    async def say_goodbye(self) -> None:
        """Say goodbye."""
        await self._worker.queue_frame(TTSSpeakFrame(self._phrases.goodbye))

    def answer_due(self, text: str) -> None:
        """A turn is over with these words: what goes out next answers it."""
        # Told here, for the record and the journal have to have the question before any of the answer.
        self._observer.caller_said(text)
        self._transport.answer_due()

    def turn_began(self) -> None:
        """The caller has the floor."""
        self._transport.turn_began()

    def stuck(self) -> None:
        """The pipeline does nothing any more."""
        self._observer.media_ended("pipeline failed")

    def answer_kept(self) -> None:
        """An answer that was begun early counts."""
        self._receptionist.keep()

    def answer_dropped(self) -> None:
        """An answer that was begun early was never given."""
        self._receptionist.drop()

    # The call.

    async def run(self) -> None:
        """Run until the conversation ends or `cancel`; owns the reader of the media link."""
        # For every task of the call, so that whatever is logged says whose it is.
        with logger.contextualize(call=self._tenant.call_id, tenant=self._tenant.tenant_id):
            await self._runner.add_workers(self._worker)
            self._turns.run()
            self._hearing.open()
            self._transport.start_reading()
            try:
                await self._runner.run()
            finally:
                await self._transport.stop_reading()
                await self._turns.close()
                await self._hearing.close()
                self._observer.turns_counted(self._turns.taker.counters)
                self._trail.flush()
                self._over = True
        # Not where it was cancelled or failed: its tasks may not have ended.
        dismantle(self._worker)

    async def greet(self) -> None:
        """Say the greeting; cached, it is on the wire within one tick."""
        if self._over:
            return
        self._turns.tell(Answered())
        await self._worker.queue_frame(TTSSpeakFrame(self._greeting))

    async def take_up(self) -> None:
        """Go on with what the pipeline before this one left undone."""
        if self._over or self._restored.next is Next.GREETING:
            return
        self._turns.tell(Answered())
        if self._restored.closing:
            self._turns.tell(FarewellDue())
        match self._restored.next:
            case Next.SAY:
                await self._worker.queue_frames([TTSSpeakFrame(text) for text in self._restored.say])
            case Next.ANSWER:
                await self._worker.queue_frame(LLMRunFrame())
            case Next.LISTEN if self._restored.closing:
                await self.finish()
            case Next.LISTEN:
                pass

    async def finish(self) -> None:
        """Let what is being said be heard, then end."""
        if self._over:
            return
        await self._worker.queue_frame(EndFrame())

    async def cancel(self, why: str) -> None:
        """End at once; the caller is gone or the call is over."""
        if not self._over:
            await self._runner.cancel(reason=why)


def _message(role: Role, text: str) -> LLMContextMessage:
    if role is Role.CALLER:
        return {"role": "user", "content": text}
    return {"role": "assistant", "content": text}


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def _turn_params(tenant: TenantContext, resources: PipelineResources) -> TurnParams:
    turns = tenant.config.turn_taking
    return TurnParams(
        complete_wait_ms=turns.complete_wait_ms,
        end_of_turn_ms=turns.end_of_turn_ms,
        unfinished_wait_ms=turns.unfinished_wait_ms,
        transcript_wait_ms=len(tenant.stt) * resources.budgets.stt_final_ms + TRANSCRIPT_MARGIN_MS,
        barge_in_ms=turns.barge_in_ms,
        decision_ms=turns.barge_in_decision_ms,
        silence_prompt_ms=turns.silence_prompt_ms,
        max_call_ms=turns.max_call_s * 1000,
        goodbye_before_ms=GOODBYE_BEFORE_MS,
        speculate=turns.speculation,
        ask_model=turns.turn_model == "auto" and resources.turn_model is not None,
    )


def _worker(*stages: FrameProcessor) -> PipelineWorker:
    """A worker without what a call does not use: RTVI, Pipecat's own turn tracking and its idle timeout."""
    return PipelineWorker(
        Pipeline([*stages]),
        params=PipelineParams(audio_in_sample_rate=CALLER_RATE_HZ, audio_out_sample_rate=PHRASE_RATE_HZ),
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
        check_dangling_tasks=False,
    )
