"""The messages of a call's data channel: RTVI, as Pipecat's clients speak it, and the transport's own signalling.

Sans-IO: text that came in and its time give actions, and so does what happens in the conversation. Rules:

- nothing but answers to the client is sent before it has said that it is ready; what happened meanwhile follows then;
- ``bot-output`` announces a sentence when it begins and completes it when it was heard to its end; ``bot-transcription``
  has the whole turn as it was heard, shorter than what was announced when the caller interrupted;
- a request that this server does not serve is answered, so that a client does not wait for it;
- no text from a client is an error here: it is ignored and counted;
- what a client sends costs little, however long, deep or often: it is refused by length before it is parsed, and
  messages and keys have a rate each.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import orjson

from mediaserver.call import Line, Speaker
from mediaserver.webrtc.rates import Rate

PROTOCOL_VERSION = "2.1.0"
LEGACY_MAJOR = "1"
"""Clients of this major version are told their own version: they refuse to talk to any other."""
LABEL = "rtvi-ai"
ABOUT = {"library": "ai-receptionist-mediaserver"}
MAX_MESSAGE_CHARACTERS = 4096
"""Of a client's message: requests are short, and JSON nests no deeper than it is long."""
MESSAGE_RATE = Rate(burst=40, refill_ms=50)
"""20 a second; a stock client sends one, and a few at the start."""
KEY_RATE = Rate(burst=32, refill_ms=100)
"""10 a second: faster than anybody dials."""
MAX_HELD = 64
"""Messages kept for a client that is not ready yet; past it the oldest go."""
MAX_ID_CHARACTERS = 64
MAX_KEYS = 32
"""Keys of one message; nobody types more at once."""
KEYS = frozenset("0123456789*#")
UNSERVED = frozenset(
    {
        "client-message",
        "send-text",
        "send-file",
        "append-to-context",
        "llm-function-call-result",
        "ui-event",
        "ui-snapshot",
        "ui-cancel-job-group",
    }
)
"""Of the protocol, but not of a receptionist that is spoken to."""
PEER_LEFT = orjson.dumps({"type": "signalling", "message": {"type": "peerLeft"}}).decode()
"""The transport's word that our side ends the call; stock clients disconnect on it."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Press:
    """The caller pressed keys, in this order."""

    keys: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """The caller wants to end the call."""


RtviAction = Send | Press | HangUp


@dataclass(slots=True)
class RtviConversation:
    """One client's view of its call."""

    ready: bool = False
    ignored: int = 0
    """Messages that made no sense."""
    too_many: int = 0
    """Messages beyond `MESSAGE_RATE`, which nobody read."""
    refused_keys: int = 0
    """Keys beyond `KEY_RATE`."""
    _messages_full_at_ms: int = 0
    _keys_full_at_ms: int = 0
    _held: deque[Send] = field(default_factory=lambda: deque(maxlen=MAX_HELD))
    _segment: int = 0
    _open_sentence: str | None = None
    _caller_speaks: bool = False

    # -- from the client -------------------------------------------------------------------------------

    def received(self, text: str, now_ms: int) -> tuple[RtviAction, ...]:
        """Take a message of the client."""
        if MESSAGE_RATE.wait_ms(self._messages_full_at_ms, now_ms):
            self.too_many += 1
            return ()
        self._messages_full_at_ms = MESSAGE_RATE.taken(self._messages_full_at_ms, now_ms)
        if len(text) > MAX_MESSAGE_CHARACTERS:
            self.ignored += 1
            return ()
        if text.startswith("ping"):
            # The transport's own keep-alive, one each second; consent freshness tells us as much (RFC 7675).
            return ()
        message = _object(text)
        kind = message.get("type")
        if kind == "signalling":
            # Track states: a muted microphone is silence, as on a telephone.
            return ()
        if message.get("label") != LABEL or not isinstance(kind, str):
            self.ignored += 1
            return ()
        return self._request(kind, _id(message), message.get("data"), now_ms)

    def _request(self, kind: str, identity: str, data: object, now_ms: int) -> tuple[RtviAction, ...]:
        if kind == "client-ready":
            return self._client_ready(identity, data)
        if kind == "disconnect-bot":
            return (HangUp(),)
        if kind == "dtmf":
            return (self._pressed(identity, _keys(data), now_ms),)
        if kind in UNSERVED:
            return (_error_response(identity, f"{kind} is not served: this line takes speech and keys"),)
        self.ignored += 1
        return ()

    def _pressed(self, identity: str, keys: str | None, now_ms: int) -> RtviAction:
        """All keys of a message or none: half a number is a wrong one."""
        if keys is None:
            return _error_response(identity, f"dtmf: buttons must be 1 to {MAX_KEYS} of 0-9, * and #")
        if KEY_RATE.wait_ms(self._keys_full_at_ms, now_ms, len(keys)):
            self.refused_keys += len(keys)
            return _error_response(identity, "dtmf: too many keys at once, none of these was pressed")
        self._keys_full_at_ms = KEY_RATE.taken(self._keys_full_at_ms, now_ms, len(keys))
        return Press(keys)

    def _client_ready(self, identity: str, data: object) -> tuple[RtviAction, ...]:
        version = data.get("version") if isinstance(data, dict) else None
        version = version if isinstance(version, str) else ""
        legacy = version.split(".")[0] == LEGACY_MAJOR
        told = version[:MAX_ID_CHARACTERS] if legacy else PROTOCOL_VERSION
        answer = _message("bot-ready", {"version": told, "about": ABOUT}, identity)
        self.ready = True
        held = tuple(self._held)
        self._held.clear()
        return (answer, *held)

    # -- from the conversation -------------------------------------------------------------------------

    def said(self, line: Line) -> tuple[Send, ...]:
        """A turn is complete."""
        if line.speaker is Speaker.RECEPTIONIST:
            return self._tell(_message("bot-transcription", {"text": line.text}))
        data = {"text": line.text, "user_id": "caller", "timestamp": line.at.isoformat(), "final": True}
        return self._tell(_message("user-transcription", data))

    def speaking(self, speaker: Speaker, *, active: bool) -> tuple[Send, ...]:
        """Somebody began to speak or has finished."""
        word = "started" if active else "stopped"
        if speaker is Speaker.CALLER:
            self._caller_speaks = active
            return self._tell(_message(f"user-{word}-speaking"))
        completed = () if active else self._completed()
        return (*completed, *self._tell(_message(f"bot-{word}-speaking")))

    def sentence(self, text: str) -> tuple[Send, ...]:
        """The receptionist begins a sentence."""
        completed = self._completed()
        self._segment += 1
        self._open_sentence = text
        return (*completed, *self._tell(self._output(text, "new", spoken="", remaining=text)))

    def _completed(self) -> tuple[Send, ...]:
        """The open sentence was heard to its end, unless the caller is speaking into it."""
        text, self._open_sentence = self._open_sentence, None
        if text is None or self._caller_speaks:
            return ()
        return self._tell(self._output(text, "completed", spoken=text, remaining=""))

    def _output(self, text: str, status: str, *, spoken: str, remaining: str) -> Send:
        return _message(
            "bot-output",
            {
                "text": text,
                "output_type": "sentence",
                "aggregated_by": "sentence",
                "segment_id": self._segment,
                "will_be_spoken": True,
                "spoken_status": status,
                "spoken_progress": {"accumulated_text": spoken, "remaining_text": remaining},
            },
        )

    def failed(self, text: str) -> tuple[Send, ...]:
        """The call ends for a reason that the caller should read."""
        return self._tell(_message("error", {"error": text, "message": text, "fatal": True}))

    def _tell(self, message: Send) -> tuple[Send, ...]:
        if self.ready:
            return (message,)
        self._held.append(message)
        return ()


def _object(text: str) -> dict[str, object]:
    """The JSON object of a message; empty when it is none."""
    try:
        message = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return {}
    return message if isinstance(message, dict) else {}


def _id(message: dict[str, object]) -> str:
    identity = message.get("id")
    return identity[:MAX_ID_CHARACTERS] if isinstance(identity, str) else ""


def _keys(data: object) -> str | None:
    """The keys of a dtmf message: ``buttons`` since protocol 2.1, before that one ``button``."""
    if not isinstance(data, dict):
        return None
    pressed = data.get("buttons", [data.get("button")])
    if not isinstance(pressed, list) or not 1 <= len(pressed) <= MAX_KEYS:
        return None
    if any(not isinstance(key, str) or key not in KEYS for key in pressed):
        return None
    return "".join(pressed)


def _message(kind: str, data: dict[str, object] | None = None, identity: str = "") -> Send:
    message: dict[str, object] = {"label": LABEL, "type": kind}
    if identity:
        message["id"] = identity
    if data is not None:
        message["data"] = data
    return Send(orjson.dumps(message).decode())


def _error_response(identity: str, text: str) -> Send:
    return _message("error-response", {"error": text}, identity)
