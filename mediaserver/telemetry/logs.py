"""The log: one sink, text for people or JSON lines for machines, each line bounded and free of secrets and speech.

What our own code logs has no caller's or receptionist's words in it. What libraries log may: of theirs only warnings and
errors are let through, and of those where they were raised, not what they say (Pipecat's messages are made of what it
works on). An exception is logged as its type and the places that it passed; its text only where the text is ours.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Literal, TextIO

import orjson
from loguru import logger

from mediaserver.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from loguru import Message, Record

LogFormat = Literal["text", "json"]

MAX_LINE_BYTES: Final = 8_192
MAX_MESSAGE_CHARACTERS: Final = 4_000
MAX_FIELD_CHARACTERS: Final = 128
"""Of a call's id, which a stranger chooses, and of the like."""
MAX_PLACES: Final = 40
"""Of an exception: the innermost."""
NOTHING: Final = "-"
FIELDS: Final = ("call", "tenant", "worker", "event")
"""What `logger.bind` may add to a line."""
OUR_PACKAGES: Final = frozenset(
    {"mediaserver", "sipbridge", "admission", "tenancy", "config", "vault", "perf", "__main__"}
)


def configure_logs(
    level: str,
    log_format: LogFormat = "text",
    *,
    redactor: Redactor | None = None,
    stream: TextIO | None = None,
    worker: str = NOTHING,
) -> Redactor:
    """Send everything that is logged to one stream (standard error); returns what learns of secrets."""
    redactor = redactor or Redactor()
    sink = LogSink(stream or sys.stderr, log_format, redactor)
    logger.remove()
    logger.configure(
        extra=dict.fromkeys(FIELDS, NOTHING) | {"worker": worker},
        patcher=lambda record: _patch(record, redactor),
    )
    logger.add(sink.write, level=level.upper(), filter=_let_through, format=_unformatted, catch=True)
    # Libraries that use the standard library's logging; warnings and errors, as it would print them by itself.
    logging.basicConfig(handlers=[_StandardLogging()], level=logging.WARNING, force=True)
    return redactor


def is_ours(module: str | None) -> bool:
    """Whether a logger's or a class's module is one of the server's."""
    return (module or "").partition(".")[0] in OUR_PACKAGES


def _let_through(record: Record) -> bool:
    return is_ours(record["name"]) or record["level"].no >= logging.WARNING


def _unformatted(_: Record) -> str:
    """The sink makes the line; loguru would put its own traceback into it."""
    return "{message}"


def _patch(record: Record, redactor: Redactor) -> None:
    """Before any sink sees it."""
    if is_ours(record["name"]):
        record["message"] = redactor(record["message"])
    else:
        place = f"{record['name']}:{record['line']} ({record['function']})"
        record["message"] = f"{place} logged {len(record['message'])} characters, which may be a caller's"


class _StandardLogging(logging.Handler):
    """Passes the standard library's records on, without what was put into them."""

    def emit(self, record: logging.LogRecord) -> None:
        # The template and not its arguments; of asyncio's ready-made texts the first line, before the objects.
        said = str(record.msg).partition("\n")[0]
        logger.opt(exception=record.exc_info).log(
            record.levelname if record.levelname in ("WARNING", "ERROR", "CRITICAL") else "WARNING",
            "{}: {}",
            record.name,
            said,
        )


class LogSink:
    """Writes each record as one bounded piece."""

    def __init__(self, stream: TextIO, log_format: LogFormat, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor
        self._line = self._json if log_format == "json" else self._text

    def write(self, message: Message) -> None:
        """Take a record from loguru."""
        self._stream.write(self._line(message.record) + "\n")
        self._stream.flush()

    def _json(self, record: Record) -> str:
        document: dict[str, object] = {
            "time": record["time"].astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record["level"].name,
            "message": record["message"][:MAX_MESSAGE_CHARACTERS],
        }
        document |= {name: value for name in FIELDS if (value := _field(record, name)) != NOTHING}
        document["logger"] = record["name"]
        if (exception := record["exception"]) is not None and exception.value is not None:
            document["exception"] = _type_of(exception.value)
            if text := self._text_of(exception.value):
                document["exception_text"] = text
            document["stack"] = list(_places(exception.value))
        return _bounded(document)

    def _text(self, record: Record) -> str:
        places = []
        if (exception := record["exception"]) is not None and exception.value is not None:
            text = self._text_of(exception.value)
            places = [f"  {_type_of(exception.value)}{': ' if text else ''}{text}"]
            places += [f"    {place}" for place in _places(exception.value)]
        names = f"{_field(record, 'tenant')}/{_field(record, 'call')}"
        if (worker := _field(record, "worker")) != NOTHING:
            names = f"{worker} {names}"
        message = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode()
            for each in record["message"]
        )
        time = record["time"].strftime("%Y-%m-%dT%H:%M:%S.") + f"{record['time'].microsecond // 1000:03}"
        line = f"{time} {record['level'].name} [{names}] {message}"
        whole = "\n".join((line, *places)).encode("utf-8", "replace")
        return whole[: MAX_LINE_BYTES - 1].decode("utf-8", "ignore")

    def _text_of(self, error: BaseException) -> str:
        """What an exception says, where it is one of ours or the system's: others quote what they were given."""
        if not isinstance(error, OSError) and not is_ours(type(error).__module__):
            return ""
        return self._redactor(str(error))[:MAX_MESSAGE_CHARACTERS]


def _field(record: Record, name: str) -> str:
    text = str(record["extra"].get(name, NOTHING))[:MAX_FIELD_CHARACTERS]
    return "".join(each if each.isprintable() else "?" for each in text)


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _places(error: BaseException) -> Iterator[str]:
    """Where an exception and those behind it passed, innermost last, without a variable's value or a line's text."""
    chain: list[BaseException] = []
    behind: BaseException | None = error
    while behind is not None and behind not in chain and len(chain) < 5:
        chain.append(behind)
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)
    places = []
    for each in reversed(chain):
        places += [
            f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-3:])}:{line} {frame.f_code.co_name}"
            for frame, line in traceback.walk_tb(each.__traceback__)
        ]
        if each is not error:
            places.append(f"{_type_of(each)}, and because of it:")
    yield from places[-MAX_PLACES:]


def _bounded(document: dict[str, object]) -> str:
    """As one line of at most `MAX_LINE_BYTES` with its end; the outermost places go first, then the message's end."""
    line = orjson.dumps(document)
    stack = document.get("stack")
    while len(line) >= MAX_LINE_BYTES and isinstance(stack, list) and stack:
        del stack[: -(len(stack) // 2) or None]
        line = orjson.dumps(document)
    for name in ("exception_text", "message"):
        while len(line) >= MAX_LINE_BYTES and (text := document.get(name)):
            document[name] = str(text)[: len(str(text)) // 2]
            line = orjson.dumps(document)
    return line.decode()
