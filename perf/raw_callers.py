"""Callers that time every packet: ``python -m perf.raw_callers MODE PORT NUMBER CALLS TURNS PERIOD_S WAV...``.

Each call's packets also go to a second media engine in this process with the same settings as the server's, which takes
the same decisions at the same moments: when speech began and when it ended. Prints ``begin`` when every call has been
greeted (at once where the greeting is spoken over), ``end`` when all is said, and then the measurements as one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from mediaserver._native import MediaEngine, SpeechStarted, SpeechStopped
from mediaserver.softphone.speech import from_wav
from mediaserver.vad_weights import silero_weights
from perf.audio import PACKET_MS, frames
from perf.raw_line import RawLine, When, now_us
from perf.results import spacing_errors_ms
from sipbridge import (
    CallAnswered,
    CallEnded,
    CallFailed,
    DialogId,
    SipAddress,
    SipEndpoint,
    SipEndpointConfig,
    SipEvent,
    SipUri,
)
from sipbridge.sdp import SessionDescription, accept_answer, make_offer

ANSWER_TIMEOUT_S = 15.0
GREETING_TIMEOUT_S = 10.0
CONVERSATION_TIMEOUT_S = 60.0
BYE_TIMEOUT_S = 3.0
NEVER_US = 1 << 62
FADE_US = 300_000
"""What still sounds this long after the caller's last word was not silenced."""


@dataclass(slots=True)
class Measured:
    """What all calls of a run found, in milliseconds."""

    greeting: list[float] = field(default_factory=list)
    """ACK to first audible packet."""
    answer: list[float] = field(default_factory=list)
    """Last packet of the question to first audible packet of the answer."""
    answer_after_detected: list[float] = field(default_factory=list)
    """The same, from the last packet that the detector counts as speech."""
    stop_decision: list[float] = field(default_factory=list)
    """Last packet that the detector counts as speech to the packet that made it certain that speech has ended."""
    spacing_error: list[float] = field(default_factory=list)
    silence: list[float] = field(default_factory=list)
    """First packet of speech over the answer to its last audible packet."""
    silence_after_detected: list[float] = field(default_factory=list)
    """The same, from the packet that made the detector certain."""
    unanswered: int = 0


@dataclass(slots=True)
class Calls:
    """The calls of one run."""

    target: SipUri
    lines: list[RawLine]
    twin: MediaEngine
    sip: SipEndpoint = field(init=False)
    streams: dict[int, int] = field(default_factory=dict)
    """Line by the twin engine's stream."""
    acked_us: dict[int, int] = field(default_factory=dict)
    period_us: int = 0
    _answers: dict[DialogId, asyncio.Future[SessionDescription]] = field(default_factory=dict)
    _ended: dict[DialogId, asyncio.Event] = field(default_factory=dict)
    _ticked: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> Measured:
        """Call, talk, hang up."""
        loop = asyncio.get_running_loop()
        self.sip = SipEndpoint(
            SipEndpointConfig(host="127.0.0.1", port=0, user_agent="bench"), self._sip_event
        )
        await self.sip.start()
        for line in self.lines:
            loop.add_reader(line.fileno(), line.receive)
        pacer = loop.create_task(self._pace())
        try:
            dialogs = [await self._connect(index) for index in range(len(self.lines))]
            if self.lines[0].when is When.IN_TURN:
                await self._until(lambda line: line.greeted, GREETING_TIMEOUT_S)
            for index, line in enumerate(self.lines):
                line.not_before_us = now_us() + self.period_us * index // len(self.lines)
            print("begin", flush=True)
            await self._until(lambda line: line.finished, CONVERSATION_TIMEOUT_S)
            print("end", flush=True)
            for dialog in dialogs:
                self.sip.hang_up(dialog)
            async with asyncio.timeout(BYE_TIMEOUT_S):
                await asyncio.gather(*(self._ended[dialog].wait() for dialog in dialogs))
        finally:
            pacer.cancel()
            await self.sip.close()
        return self._measured()

    def _sip_event(self, event: SipEvent) -> None:
        match event:
            case CallAnswered(dialog=dialog, answer=answer) if answer is not None:
                self._answers[dialog].set_result(answer)
            case CallFailed(dialog=dialog, status=status, reason=reason):
                self._answers[dialog].set_exception(ConnectionRefusedError(f"{status} {reason}"))
            case CallEnded(dialog=dialog):
                self._ended[dialog].set()
            case _:
                return

    async def _connect(self, index: int) -> DialogId:
        """Place one call and wait until it is answered."""
        line = self.lines[index]
        host, port = line.address
        offer = make_offer(address=host, port=port, codecs=("PCMU",), rtcp=False)
        caller = SipAddress(display="Bench", uri=SipUri("sip", f"bench{index}", host))
        dialog = self.sip.invite(self.target, caller, str(offer), transport="udp")
        self._answers[dialog] = asyncio.get_running_loop().create_future()
        self._ended[dialog] = asyncio.Event()
        answer = await asyncio.wait_for(self._answers[dialog], ANSWER_TIMEOUT_S)
        self.acked_us[index] = now_us()
        stream, twin_port = self.twin.open_stream(remote=line.address)
        self.twin.connect_stream(
            stream, remote=line.address, codec="PCMU", payload_type=0, send=False, rtcp=False
        )
        self.streams[stream] = index
        line.targets = [accept_answer(offer, answer).remote, (host, twin_port)]
        return dialog

    async def _pace(self) -> None:
        """Every caller's next packet each 20 ms."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s += PACKET_MS / 1000
            await asyncio.sleep(due_s - loop.time())
            for line in self.lines:
                if line.targets:
                    line.tick()
            self._ticked.set()

    async def _until(self, condition: Callable[[RawLine], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not all(condition(line) for line in self.lines):
                self._ticked.clear()
                await self._ticked.wait()

    def _measured(self) -> Measured:
        measured = Measured()
        started: dict[int, list[int]] = {index: [] for index in range(len(self.lines))}
        last_speech: dict[int, list[int]] = {index: [] for index in range(len(self.lines))}
        for event in self.twin.drain():
            if isinstance(event, SpeechStarted):
                started[self.streams[event.stream]].append(event.at_us)
            elif isinstance(event, SpeechStopped):
                last_speech[self.streams[event.stream]].append(event.last_speech_at_us)
                measured.stop_decision.append((event.at_us - event.last_speech_at_us) / 1000)
        for index, line in enumerate(self.lines):
            _measure_greeting(line, self.acked_us[index], measured)
            sounding = [arrival for arrival in line.arrivals if arrival.sounds]
            measured.spacing_error += spacing_errors_ms(
                [arrival.at_us for arrival in sounding], [arrival.sequence for arrival in sounding], PACKET_MS
            )
            if line.when is When.IN_TURN:
                _measure_answers(line, last_speech[index], measured)
            else:
                _measure_silence(line, started[index], measured)
        return measured


def _measure_greeting(line: RawLine, acked_us: int, measured: Measured) -> None:
    first = next((arrival.at_us for arrival in line.arrivals if arrival.sounds), None)
    if first is not None:
        measured.greeting.append((first - acked_us) / 1000)


def _measure_answers(line: RawLine, last_speech_us: list[int], measured: Measured) -> None:
    """From each question's end to the answer's begin."""
    for at, spoken in enumerate(line.spoken):
        until = line.spoken[at + 1].first_us if at + 1 < len(line.spoken) else float("inf")
        answer_us = next(
            (
                arrival.at_us
                for arrival in line.arrivals
                if arrival.sounds and spoken.last_us < arrival.at_us < until
            ),
            None,
        )
        if answer_us is None:
            measured.unanswered += 1
            continue
        measured.answer.append((answer_us - spoken.last_us) / 1000)
        # The last stretch of speech before the answer is the one that it waited for.
        heard = [at_us for at_us in last_speech_us if spoken.first_us < at_us < answer_us]
        if heard:
            measured.answer_after_detected.append((answer_us - heard[-1]) / 1000)


def _measure_silence(line: RawLine, started_us: list[int], measured: Measured) -> None:
    """From each interruption's begin to the last audible packet of what it interrupted."""
    for spoken in line.spoken:
        end_us = spoken.last_us + FADE_US
        sounding = [a.at_us for a in line.arrivals if a.sounds and spoken.first_us <= a.at_us <= end_us]
        certain = [at_us for at_us in started_us if spoken.first_us < at_us <= end_us]
        if not certain:
            measured.unanswered += 1
            continue
        last_us = sounding[-1] if sounding else float(spoken.first_us)
        measured.silence.append((last_us - spoken.first_us) / 1000)
        measured.silence_after_detected.append((last_us - certain[0]) / 1000)


async def _run(options: Options) -> Measured:
    utterances = [frames(await from_wav(path)) for path in options.wavs]
    lines = [
        RawLine(
            utterances, options.when, not_before_us=NEVER_US, period_us=options.period_us, turns=options.turns
        )
        for _ in range(options.calls)
    ]
    twin = MediaEngine("127.0.0.1", port_count=4, vad_model=silero_weights(), max_streams=options.calls)
    target = SipUri("sip", options.number, "127.0.0.1", options.port)
    try:
        return await Calls(target, lines, twin, period_us=options.period_us).run()
    finally:
        twin.close()
        for line in lines:
            line.close()


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    when: When
    port: int
    number: str
    calls: int
    turns: int
    period_us: int
    wavs: tuple[Path, ...]

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """Read them in order."""
        mode, port, number, calls, turns, period_s, *wavs = arguments
        return cls(
            When(mode),
            int(port),
            number,
            int(calls),
            int(turns),
            int(float(period_s) * 1_000_000),
            tuple(Path(wav) for wav in wavs),
        )


def main() -> None:
    """Talk and print."""
    print(json.dumps(asdict(uvloop.run(_run(Options.parse(sys.argv[1:]))))), flush=True)


if __name__ == "__main__":
    main()
