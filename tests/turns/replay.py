"""Turn-taking traces as text: what the core was told and what it wanted done, in virtual time.

A line is a time in milliseconds, ``>`` for an event or ``<`` for an action, a name, and its fields; ``|`` begins a text.
Lines with ``=`` before the first event set parameters. Actions stand at the time at which they are due.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args

from mediaserver.turns import TurnParams, TurnTaker
from mediaserver.turns.events import Action, Event

_EVENTS: dict[str, type] = {
    re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower(): kind for kind in get_args(Event)
}


def written(action: Action) -> str:
    """An action as a trace has it."""
    assert is_dataclass(action)
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(action).__name__).lower()
    words, text = [name], None
    for field in fields(action):
        value = getattr(action, field.name)
        if field.name == "text":
            text = value
        elif isinstance(value, bool):
            words += [field.name] if value else []
        else:
            words.append(f"{field.name}={value.value if isinstance(value, Enum) else value}")
    return " ".join(words) + (f" | {text}" if text is not None else "")


def read_event(line: str) -> Event:
    """The inverse for events."""
    head, bar, text = line.partition(" | ")
    name = max((name for name in _EVENTS if head == name or head.startswith(name + " ")), key=len)
    given: dict[str, Any] = {"text": text} if bar else {}
    for word in head[len(name) :].split():
        key, _, value = word.partition("=")
        given[key] = True if not value else float(value) if "." in value else int(value)
    event: Event = _EVENTS[name](**given)
    return event


class Clock:
    """A core in virtual time: what it does, with the time at which it did it."""

    def __init__(self, params: TurnParams) -> None:
        self.taker = TurnTaker(params)
        self.now_ms = 0

    def until(self, now_ms: int) -> list[tuple[int, Action]]:
        """Let time pass to ``now_ms``."""
        done: list[tuple[int, Action]] = []
        while (due := self.taker.next_deadline_ms) is not None and due <= now_ms:
            self.now_ms = max(self.now_ms, due)
            done += [(self.now_ms, action) for action in self.taker.poll(self.now_ms)]
        self.now_ms = now_ms
        return done

    def event(self, event: Event) -> list[tuple[int, Action]]:
        """Something happens now."""
        return [(self.now_ms, action) for action in self.taker.handle(event, self.now_ms)]


def replay(trace: str) -> str:
    """The trace with the actions that the core takes; equal to it when the core has not changed."""
    written_lines: list[str] = []
    given: dict[str, Any] = {}
    clock: Clock | None = None
    for line in trace.splitlines():
        if "<" in line.partition("|")[0] and not line.startswith("#"):
            continue
        setting = re.fullmatch(r"(\w+) = (\w+)", line)
        if setting:
            given[setting[1]] = setting[2] == "True" if setting[2] in {"True", "False"} else int(setting[2])
        match = re.fullmatch(r" *(\d+) ([>.])(?: (.*))?", line)
        if match is None:
            written_lines.append(line)
            continue
        clock = clock or Clock(TurnParams(**given))
        done = clock.until(int(match[1]))
        written_lines += [f"{at_ms:7d} <   {written(action)}" for at_ms, action in done]
        written_lines.append(f"{int(match[1]):7d} {match[2]}" + (f" {match[3]}" if match[3] else ""))
        if match[2] == ">":
            done = clock.event(read_event(match[3]))
            written_lines += [f"{at_ms:7d} <   {written(action)}" for at_ms, action in done]
    return "\n".join(written_lines) + "\n"
