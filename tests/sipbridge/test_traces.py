"""Golden traces: what the peer, the application and the clock do, and line by line what comes of it.

``SIP_TRACES=write`` writes them anew; read the difference before committing it.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from sipbridge import InviteReceived, OfferReceived
from tests.sipbridge.bench import PEER_TCP, Bench, config, describe

TRACES = Path(__file__).parent.parent / "traces" / "sip"


class Player:
    """Plays the instructions of a trace and writes it with what came of them."""

    def __init__(self) -> None:
        self.bench = Bench()

    def play(self, line: str) -> list[str]:
        words = shlex.split(line)
        started_ms = self.bench.now_ms
        self._do(words[0], words[1:])
        fresh, self.bench.fresh = self.bench.fresh, []
        lines: dict[str, list[int]] = {}
        for at_ms, action in fresh:
            lines.setdefault(describe(action), []).append(at_ms - started_ms)
        return [_line(text, times) for text, times in lines.items()]

    def _do(self, who: str, words: list[str]) -> None:
        bench = self.bench
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        match who:
            case "config":
                self.bench = Bench(config(**{name: int(value) for name, value in options.items()}))
            case "tcp":
                bench.flow = PEER_TCP
            case "peer" if plain[0].isdigit():
                bench.reply(int(plain[0]), *plain[1:], **options)
            case "peer":
                bench.peer(plain[0], int(plain[1]), **options)
            case "wait":
                bench.wait(int(plain[0]))
            case "settle":
                bench.settle()
                assert bench.agent.idle
                assert bench.agent.next_ms() is None
            case "closed":
                bench.take(bench.agent.connection_closed(bench.flow, bench.now_ms))
            case "unreachable":
                bench.take(bench.agent.transport_failed(bench.sent[-1][1], bench.now_ms))
            case "app":
                self._app(plain[0], [int(word) for word in plain[1:]])
            case _:
                raise AssertionError(f"unknown instruction {who}")

    def _app(self, command: str, numbers: list[int]) -> None:
        bench = self.bench
        if command == "invite":
            bench.invite()
            return
        dialog = bench.events[-1].dialog if bench.events else bench.agent.live_dialogs()[0]
        match command:
            case "ring":
                bench.take(bench.agent.ring(dialog, bench.now_ms, *numbers))
            case "answer":
                asked = next(
                    e for e in reversed(bench.events) if isinstance(e, InviteReceived | OfferReceived)
                )
                bench.answer(dialog, asked.offer)
            case "reject":
                retry = numbers[1] if len(numbers) > 1 else None
                bench.take(bench.agent.reject(dialog, numbers[0], bench.now_ms, retry_after_s=retry))
            case "hang_up":
                bench.take(bench.agent.hang_up(dialog, bench.now_ms))
            case _:
                raise AssertionError(f"unknown command {command}")


def _line(text: str, times_ms: list[int]) -> str:
    """One line; what is repeated is told once, with how often and until when."""
    when = f" {times_ms[0]:>6} " if times_ms[0] else " " * 8
    again = f"  [{len(times_ms)} times, last at {times_ms[-1]}]" if len(times_ms) > 1 else ""
    return f"{when}{text}{again}"


def replay(text: str) -> str:
    player = Player()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += player.play(line)
    return "\n".join(lines) + "\n"


def test_there_are_traces() -> None:
    assert len(list(TRACES.glob("*.txt"))) >= 20


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.txt")), ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    expected = path.read_text()
    played = replay(expected)
    if os.environ.get("SIP_TRACES") == "write":
        path.write_text(played)
    assert played == expected
