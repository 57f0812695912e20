"""The data channel's messages: Pipecat's own models read what we write, and nothing that comes in is an error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pipecat.processors.frameworks.rtvi import models as rtvi

from mediaserver.call import Line, Speaker
from mediaserver.webrtc.rtvi import (
    KEY_RATE,
    MAX_HELD,
    MAX_KEYS,
    MAX_MESSAGE_CHARACTERS,
    MESSAGE_RATE,
    PEER_LEFT,
    HangUp,
    Press,
    RtviAction,
    RtviConversation,
    Send,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _ready(version: str = "2.1.0") -> str:
    return _request("client-ready", {"version": version, "about": {"library": "test"}}, "r1")


def _request(kind: str, data: object, identity: str = "1") -> str:
    return json.dumps({"label": "rtvi-ai", "type": kind, "id": identity, "data": data})


def _sent(actions: tuple[RtviAction, ...]) -> list[dict[str, Any]]:
    return [json.loads(action.text) for action in actions if isinstance(action, Send)]


def _conversation() -> RtviConversation:
    conversation = RtviConversation()
    conversation.received(_ready(), 0)
    return conversation


def test_a_client_that_is_ready_is_told_so_and_what_it_missed() -> None:
    conversation = RtviConversation()
    assert conversation.speaking(Speaker.RECEPTIONIST, active=True) == ()
    assert conversation.sentence("Hello.") == ()
    ready, *missed = _sent(conversation.received(_ready(), 0))
    assert rtvi.BotReady.model_validate(ready).id == "r1"
    assert ready["data"]["version"] == "2.1.0"
    assert [message["type"] for message in missed] == ["bot-started-speaking", "bot-output"]


def test_an_old_client_is_told_its_own_version() -> None:
    (ready,) = _sent(RtviConversation().received(_ready("1.2.0"), 0))
    assert ready["data"]["version"] == "1.2.0"
    (ready,) = _sent(RtviConversation().received(_request("client-ready", None), 0))
    assert ready["data"]["version"] == "2.1.0"


def test_pipecats_models_read_a_conversation() -> None:
    conversation = _conversation()
    (output,) = _sent(conversation.sentence("We open at eight."))
    assert rtvi.BotOutputMessage.model_validate(output).data.spoken_status == "new"
    (said,) = _sent(conversation.said(Line(Speaker.CALLER, "When are you open?", AT)))
    assert rtvi.UserTranscriptionMessage.model_validate(said).data.timestamp == "2026-01-02T03:04:05+00:00"
    (heard,) = _sent(conversation.said(Line(Speaker.RECEPTIONIST, "We open at eight.", AT)))
    assert rtvi.BotTranscriptionMessage.model_validate(heard).data.text == "We open at eight."
    (error,) = _sent(conversation.failed("media lost"))
    assert rtvi.Error.model_validate(error).data.fatal
    kinds = [
        _sent(conversation.speaking(speaker, active=active))[-1]["type"]
        for speaker in Speaker
        for active in (True, False)
    ]
    assert kinds == [
        "user-started-speaking",
        "user-stopped-speaking",
        "bot-started-speaking",
        "bot-stopped-speaking",
    ]


def test_a_sentence_is_completed_when_it_was_heard_to_its_end() -> None:
    conversation = _conversation()
    conversation.sentence("We open at eight.")
    completed, _ = _sent(conversation.sentence("We close at six."))
    assert (completed["data"]["text"], completed["data"]["spoken_status"]) == (
        "We open at eight.",
        "completed",
    )
    conversation.speaking(Speaker.CALLER, active=True)
    (stopped,) = _sent(conversation.speaking(Speaker.RECEPTIONIST, active=False))
    assert stopped["type"] == "bot-stopped-speaking"  # interrupted: never completed


def test_keys_and_hanging_up() -> None:
    conversation = _conversation()
    assert conversation.received(_request("dtmf", {"buttons": ["1", "2", "#"]}), 0) == (Press("12#"),)
    assert conversation.received(_request("dtmf", {"button": "*"}), 0) == (Press("*"),)
    assert conversation.received(_request("disconnect-bot", {}), 0) == (HangUp(),)
    wrong_ones: list[object] = [
        None,
        {},
        *({"buttons": keys} for keys in ([], ["A"], ["12"], ["1"] * (MAX_KEYS + 1))),
    ]
    for wrong in wrong_ones:
        (answer,) = _sent(conversation.received(_request("dtmf", wrong), 0))
        assert rtvi.ErrorResponse.model_validate(answer).data.error.startswith("dtmf")


def test_what_is_not_served_is_answered() -> None:
    (answer,) = _sent(_conversation().received(_request("client-message", {"t": "weather"}, "m7"), 0))
    response = rtvi.ErrorResponse.model_validate(answer)
    assert response.id == "m7"
    assert "not served" in response.data.error


def test_the_transports_own_messages_are_no_requests() -> None:
    conversation = _conversation()
    track = {"type": "signalling", "message": {"type": "trackStatus", "receiver_index": 0, "enabled": False}}
    assert conversation.received("ping: 1764000000000", 0) == ()
    assert conversation.received(json.dumps(track), 0) == ()
    assert conversation.ignored == 0
    assert json.loads(PEER_LEFT) == {"type": "signalling", "message": {"type": "peerLeft"}}


def test_nonsense_is_counted() -> None:
    conversation = _conversation()
    for text in (
        "",
        "[]",
        "{",
        '{"label": "rtvi-ai"}',
        _request("no-such", {}),
        "x" * (MAX_MESSAGE_CHARACTERS + 1),
    ):
        assert conversation.received(text, 0) == ()
    assert conversation.ignored == 6


def test_what_is_too_long_is_refused_before_it_is_parsed() -> None:
    conversation = _conversation()
    depth = MAX_MESSAGE_CHARACTERS // 2
    assert conversation.received("[" * depth + "]" * depth, 0) == ()  # as deep as it can be
    padded = _request("disconnect-bot", "x" * MAX_MESSAGE_CHARACTERS)
    assert conversation.received(padded, 0) == ()
    assert conversation.received("ping" + "x" * MAX_MESSAGE_CHARACTERS, 0) == ()
    assert conversation.ignored == 3
    assert conversation.received(_request("disconnect-bot", {}).ljust(MAX_MESSAGE_CHARACTERS), 0) == (
        HangUp(),
    )


def test_keys_have_a_rate_and_those_beyond_it_are_counted() -> None:
    conversation = _conversation()
    many = _request("dtmf", {"buttons": ["5"] * KEY_RATE.burst})
    one = _request("dtmf", {"button": "6"})
    assert conversation.received(many, 0) == (Press("5" * KEY_RATE.burst),)
    (answer,) = _sent(conversation.received(one, KEY_RATE.refill_ms - 1))
    assert rtvi.ErrorResponse.model_validate(answer).data.error.startswith("dtmf: too many")
    assert conversation.received(one, KEY_RATE.refill_ms) == (Press("6"),)
    assert conversation.refused_keys == 1


@given(st.lists(st.tuples(st.integers(1, MAX_KEYS), st.integers(0, 2_000)), max_size=60))
def test_no_page_presses_more_keys_than_burst_and_rate(messages: list[tuple[int, int]]) -> None:
    conversation, now_ms, pressed, sent = RtviConversation(), 0, 0, 0
    for count, pause_ms in messages:
        now_ms += pause_ms
        sent += count
        request = _request("dtmf", {"buttons": ["1"] * count})
        pressed += sum(len(a.keys) for a in conversation.received(request, now_ms) if isinstance(a, Press))
        assert pressed <= KEY_RATE.burst + now_ms / KEY_RATE.refill_ms
    if not conversation.too_many:
        assert pressed + conversation.refused_keys == sent


def test_messages_have_a_rate_and_those_beyond_it_are_ignored_and_counted() -> None:
    conversation = RtviConversation()
    request = _request("client-message", {})
    answered = [bool(conversation.received(request, 0)) for _ in range(MESSAGE_RATE.burst + 5)]
    assert answered == [True] * MESSAGE_RATE.burst + [False] * 5
    assert conversation.too_many == 5
    assert not conversation.received("ping", MESSAGE_RATE.refill_ms - 1)
    assert conversation.too_many == 6
    assert conversation.received(_request("disconnect-bot", {}), MESSAGE_RATE.refill_ms) == (HangUp(),)


SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
TEXTS = (
    st.text(st.characters(exclude_categories=()), max_size=40)
    | ANYTHING.map(json.dumps)
    | st.builds(
        _request,
        st.sampled_from(["client-ready", "dtmf", "disconnect-bot", "send-text", "client-message", "?"]),
        ANYTHING | st.dictionaries(st.sampled_from(["version", "buttons", "button"]), ANYTHING),
        st.text(max_size=100),
    )
)


@given(st.lists(TEXTS | st.sampled_from(["say", "speak", "stop"]), max_size=200))
def test_any_client_gets_well_formed_answers_and_nothing_before_it_is_ready(texts: list[str]) -> None:
    conversation = RtviConversation()
    for number, text in enumerate(texts):
        was_ready = conversation.ready
        if text == "say":
            actions: tuple[RtviAction, ...] = conversation.sentence("Hello.")
        elif text in ("speak", "stop"):
            actions = conversation.speaking(Speaker.RECEPTIONIST, active=text == "speak")
        else:
            actions = conversation.received(text, number * MESSAGE_RATE.refill_ms)
        kinds = [message["type"] for message in _sent(actions)]
        if not was_ready and kinds:
            assert kinds[0] in {"error-response", "bot-ready"}
        assert len(kinds) <= MAX_HELD + 1
