"""Recorded conversations against another version: what the receptionist would say differently.

Each of the caller's lines is given to the version's replier with the conversation as it would have gone until then, at the time
when it was said (for opening hours). What would be said is compared with what was heard. A line that the caller interrupted
counts as the same when what was heard is how the new one begins.

The built-in receptionist is deterministic. A language model is asked only where that is wanted, and says it in other words
every time: there, read the lines, not the count.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from config.tenant import TenantConfig
from mediaserver.errors import MediaServerError
from mediaserver.receptionist import ConversationState, EndCall, Receptionist, first_message
from tenancy import CallRecord
from tenancy.providers import Chains, ResolvedProvider

CALLER: Final = "caller"
RECEPTIONIST: Final = "receptionist"
MODEL_TIMEOUT_S: Final = 20.0
MAX_LINE_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Exchange:
    """Something that the caller said (nothing, before the greeting), what was heard after it, and when."""

    caller: str
    heard: str
    at: datetime
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """An exchange in which something else would be said."""

    exchange: Exchange
    said: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one call."""

    call_id: str
    started_at: datetime
    config_version: int
    exchanges: int
    differences: tuple[Difference, ...] = field(default=())
    cut: bool = False
    """The new version would have ended the call before its last line."""


class Speaker(Protocol):
    """Who replies in one conversation."""

    async def reply(self, heard: str, at: datetime) -> str:
        """What is said to this."""
        ...

    @property
    def over(self) -> bool:
        """Whether it has said goodbye."""
        ...


class BuiltIn:
    """The built-in receptionist of a configuration, in one conversation."""

    def __init__(self, config: TenantConfig) -> None:
        self._receptionist = Receptionist(config)
        self._state = ConversationState()
        self.over = False

    async def reply(self, heard: str, at: datetime) -> str:
        reply = self._receptionist.reply(self._state, heard, at)
        self._state = reply.state
        self.over = any(isinstance(each, EndCall) for each in reply.actions)
        return reply.text


def exchanges_of(record: CallRecord) -> tuple[Exchange, ...]:
    """A call's transcript as pairs: what one side said at a stretch is one text. Lines of neither side are left out."""
    found: list[Exchange] = []
    caller: list[str] = []
    heard: list[str] = []
    at, interrupted = record.started_at, False
    for line in record.transcript:
        text = line.get("text")
        if not isinstance(text, str):
            continue
        match line.get("speaker"):
            case "caller":
                if heard:
                    found.append(Exchange(" ".join(caller), " ".join(heard), at, interrupted))
                    caller, heard, interrupted = [], [], False
                caller.append(text)
                at = _moment(line.get("at"), at)
            case "receptionist":
                heard.append(text)
                interrupted = interrupted or line.get("interrupted") is True
    if heard:
        found.append(Exchange(" ".join(caller), " ".join(heard), at, interrupted))
    return tuple(found)


async def replay(record: CallRecord, config: TenantConfig, speaker: Speaker) -> Replayed:
    """Run one call's lines through a version's replier; ``config`` has its variables filled in."""
    differences = []
    exchanges = exchanges_of(record)
    done = 0
    for exchange in exchanges:
        if speaker.over:
            break
        done += 1
        if exchange.caller:
            said = await speaker.reply(exchange.caller, exchange.at)
        else:
            said = first_message(config)
        if not same(exchange, said):
            differences.append(Difference(exchange, said))
    return Replayed(
        record.call_id,
        record.started_at,
        record.config_version,
        len(exchanges),
        tuple(differences),
        cut=done < len(exchanges),
    )


def same(exchange: Exchange, said: str) -> bool:
    """Whether the caller would have heard the same."""
    heard, new = _plain(exchange.heard), _plain(said)
    return new.startswith(heard) if exchange.interrupted else new == heard


def lines_of(replayed: Replayed) -> list[str]:
    """A call's differences for people: what was heard and what would be, with the words that change marked."""
    lines = [
        f"call {_printable(replayed.call_id)} of {replayed.started_at:%Y-%m-%d %H:%M}Z (version {replayed.config_version}):"
        f" {len(replayed.differences)} of {replayed.exchanges} replies differ"
    ]
    for each in replayed.differences:
        asked = _printable(each.exchange.caller) or "(the greeting)"
        lines.append(f"  caller: {asked}")
        lines += [f"    {line}" for line in word_diff(each.exchange.heard, each.said)]
    if replayed.cut:
        lines.append("  the new version has said goodbye by then: the rest of the call is left out")
    return lines


def word_diff(old: str, new: str) -> list[str]:
    """Both texts, and under each the words that the other has not, as `difflib.ndiff` marks characters."""
    before, after = _printable(old).split(), _printable(new).split()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    removed: list[str] = []
    added: list[str] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        mark = " " if kind == "equal" else "^"
        removed += [mark * len(word) for word in before[i:j]]
        added += [mark * len(word) for word in after[k:m]]
    lines = []
    for sign, words, marks in (("-", before, removed), ("+", after, added)):
        lines.append(f"{sign} {' '.join(words)}")
        under = " ".join(marks).rstrip()
        if under:
            lines.append(f"? {under}")
    return lines


@asynccontextmanager
async def speakers(config: TenantConfig, chains: Chains, *, ask_models: bool) -> AsyncIterator[Speakers]:
    """Who replies for a version: its first language model where that is wanted, else the built-in receptionist.

    Raises `MediaServerError` where it is wanted and there is none.
    """
    models = [each for each in chains.llm if each.kind == "openai"]
    if not ask_models:
        yield Speakers(config, models, None)
        return
    if not models:
        left_out = [each for each in chains.skipped if each.startswith("llm: ")]
        why = "; ".join(left_out) or "the version names none"
        raise MediaServerError(f"no language model can be asked: {why}")
    # Pipecat takes seconds to import; only a model's client needs it.
    from mediaserver.configuring.model_speaker import model_speakers

    async with model_speakers(config, models[0]) as make:
        yield Speakers(config, models, make)


class _Maker(Protocol):
    def __call__(self) -> Speaker: ...


@dataclass(frozen=True, slots=True)
class Speakers:
    """Makes who replies, anew for each conversation."""

    config: TenantConfig
    models: Sequence[ResolvedProvider]
    make_model: _Maker | None

    @property
    def name(self) -> str:
        """Who it is, for people."""
        if self.make_model is not None:
            return self.models[0].name
        return "the built-in receptionist"

    def one(self) -> Speaker:
        """For one conversation."""
        return BuiltIn(self.config) if self.make_model is None else self.make_model()


def _moment(text: object, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else otherwise
    except ValueError:
        return otherwise
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _printable(text: str) -> str:
    shown = "".join(each if each.isprintable() else " " for each in text)
    return shown if len(shown) <= MAX_LINE_CHARACTERS else f"{shown[:MAX_LINE_CHARACTERS]}..."
