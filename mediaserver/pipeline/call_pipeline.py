"""One call's pipeline: built from its tenant's context, run until the conversation or the media ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipecat.frames.frames import EndFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    AssistantTurnStoppedMessage,
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
    UserTurnStoppedMessage,
)
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.turns.user_start.vad_user_turn_start_strategy import VADUserTurnStartStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from config.tenant import TurnTaking
from mediaserver.media_link import MediaLink
from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache
from mediaserver.pipeline.hearing import Hearing
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.receptionist_replier import ReceptionistReplier
from mediaserver.pipeline.replying import Replying
from mediaserver.pipeline.services import ProviderAccess, model_repliers, synthesizers, transcribers
from mediaserver.pipeline.speaking import Speaking
from mediaserver.pipeline.transport import CALLER_RATE_HZ, CallTransport, TurnMeasured
from mediaserver.pipeline.turn_stop import TranscribedSilenceStop
from mediaserver.receptionist import Action, EndCall, Phrases, system_prompt
from tenancy import TenantContext

TURN_WATCHDOG_MARGIN_S = 2.0
"""Ends a turn whose transcription never answered: the time that its whole chain may take, and this."""


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

    def turn_measured(self, turn: TurnMeasured) -> None:
        """The wire latency of an answered turn."""
        ...

    def action(self, action: Action) -> None:
        """Something that the receptionist wants done."""
        ...

    def media_ended(self, why: str) -> None:
        """The caller's media has stopped."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineResources:
    """What the pipelines of a node share; nothing in it belongs to a tenant."""

    providers: ProviderAccess
    budgets: Budgets
    phrases: PhraseCache
    clock: Callable[[], datetime]


class CallPipeline:
    """The conversation of one call. Build it early: it costs milliseconds, and the greeting must not wait for it."""

    def __init__(
        self,
        tenant: TenantContext,
        link: MediaLink,
        resources: PipelineResources,
        observer: CallObserver,
    ) -> None:
        config = tenant.config
        turns = config.turn_taking
        phrases = Phrases.of(config)
        self._observer = observer
        self._greeting = config.greeting
        self._prompted = False
        """Whether a silent caller has been asked already."""
        self._closing = False
        """Whether the call ends when what is being said has been heard. A caller who speaks meanwhile has more to say."""
        self._transport = CallTransport(
            link,
            speech_start_ms=turns.speech_start_ms,
            observer=observer,
        )
        receptionist = ReceptionistReplier(config, resources.clock, self._act)
        replying = Replying(
            (
                *model_repliers(tenant.llm, resources.providers, system_prompt(config, resources.clock())),
                receptionist,
            ),
            resources.budgets,
            resources.providers.care,
            apology=phrases.one_moment,
            failure=phrases.failure,
        )
        context = LLMContext()
        watchdog_s = len(tenant.stt) * resources.budgets.stt_final_ms / 1000 + TURN_WATCHDOG_MARGIN_S
        aggregators = self._aggregators(context, turns, phrases, watchdog_s)
        self._worker = _worker(
            self._transport.input(),
            Hearing(
                transcribers(tenant.stt, resources.providers),
                resources.budgets,
                resources.providers.care,
                apology=phrases.one_moment,
            ),
            aggregators.user(),
            replying,
            Speaking(
                synthesizers(tenant.tts, resources.providers, config.voice.name, config.voice.speed),
                resources.budgets,
                resources.providers.care,
                resources.phrases,
                owner=tenant.tenant_id,
                voice=config.voice.name,
                speed=config.voice.speed,
                apology=phrases.one_moment,
                failure=phrases.failure,
            ),
            self._transport.output(),
            aggregators.assistant(),
        )
        # Before the ACK: the caller's first sentence must not wait for a handshake.
        resources.providers.warm(tenant)
        # One runner per call: a shared one with auto_end=False keeps every finished worker alive.
        self._runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)

    def _aggregators(
        self, context: LLMContext, turns: TurnTaking, phrases: Phrases, watchdog_s: float
    ) -> LLMContextAggregatorPair:
        pair = LLMContextAggregatorPair(
            context,
            user_params=LLMUserAggregatorParams(
                audio_idle_timeout=0,
                user_turn_stop_timeout=watchdog_s,
                user_idle_timeout=turns.silence_prompt_ms / 1000,
                user_turn_strategies=UserTurnStrategies(
                    start=[VADUserTurnStartStrategy()],
                    stop=[TranscribedSilenceStop(end_of_turn_ms=turns.end_of_turn_ms)],
                ),
            ),
        )

        async def caller_speaks(_: object, __: object) -> None:
            self._closing = False
            self._observer.caller_speaking(active=True)

        async def user_turn(_: object, __: object, message: UserTurnStoppedMessage) -> None:
            self._prompted = False
            self._observer.caller_speaking(active=False)
            if message.content:
                self._observer.caller_said(message.content)

        async def assistant_turn(_: object, message: AssistantTurnStoppedMessage) -> None:
            if message.content:
                self._observer.receptionist_said(message.content, interrupted=message.interrupted)
            if self._closing and not message.interrupted:
                await self.finish()

        async def caller_silent(_: object) -> None:
            if self._closing:
                await self.finish()
            elif self._prompted:
                self._closing = True
                await self._worker.queue_frame(TTSSpeakFrame(phrases.goodbye))
            else:
                self._prompted = True
                await self._worker.queue_frame(TTSSpeakFrame(phrases.still_there))

        pair.user().add_event_handler("on_user_turn_started", caller_speaks)
        pair.user().add_event_handler("on_user_turn_stopped", user_turn)
        pair.user().add_event_handler("on_user_turn_idle", caller_silent)
        pair.assistant().add_event_handler("on_assistant_turn_stopped", assistant_turn)
        return pair

    def _act(self, action: Action) -> None:
        if isinstance(action, EndCall):
            self._closing = True
        self._observer.action(action)

    async def run(self) -> None:
        """Run until the conversation ends or `cancel`; owns the reader of the media link."""
        await self._runner.add_workers(self._worker)
        self._transport.start_reading()
        try:
            await self._runner.run()
        finally:
            await self._transport.stop_reading()

    async def greet(self) -> None:
        """Say the greeting; cached, it is on the wire within one tick."""
        await self._worker.queue_frame(TTSSpeakFrame(self._greeting))

    async def finish(self) -> None:
        """Let what is being said be heard, then end."""
        await self._worker.queue_frame(EndFrame())

    async def cancel(self, why: str) -> None:
        """End at once; the caller is gone or the call is over."""
        await self._runner.cancel(reason=why)


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
