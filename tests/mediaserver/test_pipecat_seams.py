"""The private and semi-private seams of Pipecat 1.14 that the pipeline stands on. An upgrade that moves one fails here."""

from __future__ import annotations

import inspect
from importlib.metadata import version

from pipecat.adapters.llm.services.open_ai_adapter import OpenAILLMAdapter
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3
from pipecat.frames.frames import (
    AggregatedTextFrame,
    EagerEndOfTurnCancelFrame,
    InterruptionFrame,
    LLMContextFrame,
    SystemFrame,
    TextFrame,
    TranscriptionFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMUserAggregator, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.turns.user_stop.base_user_turn_stop_strategy import BaseUserTurnStopStrategy
from pipecat.utils.text.simple_text_aggregator import SimpleTextAggregator

from mediaserver.pipeline.output import HeardTextFrame, PlayoutSender
from mediaserver.pipeline.turn_strategies import CallerTurnFrame


def test_the_pinned_version_is_the_one_that_was_read() -> None:
    assert version("pipecat-ai") == "1.14.0"


def test_the_output_transport_looks_its_sender_up_by_destination() -> None:
    transport = BaseOutputTransport(TransportParams())
    assert transport._media_senders == {}
    source = inspect.getsource(BaseOutputTransport._handle_frame)
    used = {
        "handle_interruptions",
        "handle_audio_frame",
        "handle_tts_stopped",
        "handle_timed_frame",
        "handle_sync_frame",
    }
    for method in used:
        assert f"sender.{method}(" in source
        assert inspect.iscoroutinefunction(getattr(PlayoutSender, method))
    for method, caller in (("stop", BaseOutputTransport.stop), ("cancel", BaseOutputTransport.cancel)):
        assert f"sender.{method}(" in inspect.getsource(caller)
        assert inspect.iscoroutinefunction(getattr(PlayoutSender, method))


def test_heard_text_is_a_system_frame_that_the_assistant_aggregator_takes_as_text() -> None:
    frame = HeardTextFrame("we are open")
    assert isinstance(frame, SystemFrame)
    assert isinstance(frame, TextFrame)
    assert frame.append_to_context
    assert not frame.includes_inter_frame_spaces
    assert issubclass(InterruptionFrame, SystemFrame)


def test_a_turn_is_ended_by_a_frame_that_no_interruption_drops() -> None:
    frame = CallerTurnFrame("When are you open?", "caller", "", speculated=True)
    assert frame.speculated
    assert not frame.interruptible
    assert isinstance(frame, TranscriptionFrame)
    assert not isinstance(frame, SystemFrame)


def test_a_speculation_is_confirmed_and_withdrawn_through_these() -> None:
    assert issubclass(EagerEndOfTurnCancelFrame, SystemFrame)
    assert LLMContextFrame(context=LLMContext(), speculation=True).speculation
    aggregator = inspect.getsource(LLMUserAggregator)
    assert "run_llm=not params.confirms_speculation" in aggregator
    assert "await self.broadcast_frame(EagerEndOfTurnCancelFrame)" in aggregator
    assert (
        "confirms_speculation"
        in inspect.signature(BaseUserTurnStopStrategy.trigger_user_turn_finalized).parameters
    )
    # Ours pass through Pipecat's gate untouched, and stop by themselves.
    assert "self._speculation_gate.process(frame, direction)" in inspect.getsource(LLMService.push_frame)
    assert inspect.iscoroutinefunction(FrameProcessor._start_interruption)
    assert list(inspect.signature(TTSService._handle_interruption).parameters) == [
        "self",
        "frame",
        "direction",
    ]


def test_the_turn_model_takes_audio_and_gives_a_probability() -> None:
    assert list(inspect.signature(LocalSmartTurnAnalyzerV3._predict_endpoint).parameters) == [
        "self",
        "audio_array",
    ]
    assert '"probability": probability' in inspect.getsource(LocalSmartTurnAnalyzerV3._predict_endpoint)


def test_a_sentence_is_announced_before_its_audio_and_repeated_after_it() -> None:
    speak = inspect.getsource(TTSService._speak_text)
    assert speak.index("_announce_text") < speak.index("_synthesize_text") < speak.index("_push_spoken_text")
    assert issubclass(TTSTextFrame, AggregatedTextFrame)


def test_the_stages_ask_services_through_these_methods() -> None:
    assert list(inspect.signature(SegmentedSTTService.run_stt).parameters) == ["self", "audio"]
    assert list(inspect.signature(TTSService.run_tts).parameters) == ["self", "text", "context_id"]
    assert list(inspect.signature(LLMService._push_llm_text).parameters) == ["self", "text"]


def test_the_synthesis_stage_cuts_text_with_an_aggregator_that_can_be_replaced() -> None:
    for method in (
        TTSService._handle_text,
        TTSService._handle_llm_response_end,
        TTSService._handle_interruption,
    ):
        assert "self._text_aggregator." in inspect.getsource(method)
    assert SimpleTextAggregator()._text == ""  # type: ignore[no-untyped-call]


async def test_the_adapter_makes_a_requests_messages() -> None:
    context = LLMContext([{"role": "user", "content": "When are you open?"}])
    adapter = OpenAILLMAdapter()  # type: ignore[no-untyped-call]
    given = await adapter.get_llm_invocation_params(
        context, system_instruction="Be brief.", convert_developer_to_user=False
    )
    assert given["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "When are you open?"},
    ]


def test_a_pipeline_can_be_taken_apart() -> None:
    pipeline = Pipeline([])
    assert [type(one).__name__ for one in pipeline.processors] == ["PipelineSource", "PipelineSink"]
    assert all(isinstance(handler.handlers, list) for handler in pipeline._event_handlers.values())


def test_the_user_aggregator_takes_our_turn_strategies() -> None:
    fields = LLMUserAggregatorParams.__dataclass_fields__
    assert {"user_turn_strategies", "user_turn_stop_timeout", "audio_idle_timeout", "empty_user_turn"} <= set(
        fields
    )


def test_no_name_of_ours_collides_with_a_name_of_pipecat() -> None:
    from mediaserver.pipeline.hearing import Hearing
    from mediaserver.pipeline.replying import Replying
    from mediaserver.pipeline.speaking import Speaking

    allowed = {"run_stt", "run_tts", "setup", "cleanup", "process_frame"}
    for ours, theirs in ((Hearing, SegmentedSTTService), (Replying, LLMService), (Speaking, TTSService)):
        defined = {name for name in vars(ours) if not name.startswith("__") and callable(vars(ours)[name])}
        assert {name for name in defined if hasattr(theirs, name)} <= allowed
