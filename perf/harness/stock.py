"""The baseline: the same dialogue on Pipecat as it comes. ``python -m perf.harness.stock --providers URL``.

The pipeline is what Pipecat's own examples build for a phone call: Silero and the default turn strategies (smart-turn) for
each call, OpenAI services with clients of their own, context aggregators, a worker with its defaults (RTVI, observers, turn
tracking). Only what brings packets to it is ours, because Pipecat has no RTP: a transport that hands over 20 ms of audio per
packet and sends at the packets' pace, and SIP to answer the generator's calls. It leaves out what a carrier's WebSocket
would add (JSON and base64 per packet), so it costs less than the usual deployment.
"""

from __future__ import annotations

import argparse
import asyncio
import audioop
import sys
import time
from dataclasses import dataclass, field

import uvloop
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSSpeakFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.workers.runner import WorkerRunner

from perf.audio import FRAME, LINE_RATE_HZ, PACKET_MS, packet
from sipbridge import (
    CallEnded,
    DialogId,
    InviteConfirmed,
    InviteReceived,
    SipEndpoint,
    SipEndpointConfig,
    SipEvent,
)
from sipbridge.sdp import negotiate

HOST = "127.0.0.1"
GREETING = "Hello, this is the bench bakery. How can I help you?"
OPENAI_SPEECH_RATE_HZ = 24_000
RTP_HEADER = 12
MARKER = 0x80
PAUSE_S = 0.2
"""Pipecat sends nothing while the bot is silent. What is later than this is taken for such a pause, which favours it: a
slip of that length is no spacing error then."""


class _Line(asyncio.DatagramProtocol):
    """One call's socket."""

    def __init__(self) -> None:
        self.payloads: asyncio.Queue[bytes] = asyncio.Queue(maxsize=500)
        self.remote: tuple[str, int] | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._sequence = 0
        self._timestamp = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:  # noqa: ARG002
        if len(data) == RTP_HEADER + FRAME and not self.payloads.full():
            self.payloads.put_nowait(data[RTP_HEADER:])

    def send(self, payload: bytes, paused_s: float | None) -> None:
        """One packet; ``paused_s``: the first one after so long a pause (RFC 3551 4.1)."""
        self._sequence += 1
        self._timestamp += FRAME + int((paused_s or 0) * LINE_RATE_HZ)
        datagram = bytearray(packet(self._sequence, self._timestamp, 1, payload))
        datagram[1] |= MARKER if paused_s is not None else 0
        if self._transport is not None and self.remote is not None:
            self._transport.sendto(datagram, self.remote)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()


class _Input(BaseInputTransport):
    def __init__(self, line: _Line, params: TransportParams) -> None:
        super().__init__(params)
        self._rtp_line = line
        self._rtp_task: asyncio.Task[None] | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._rtp_task = self.create_task(self._rtp_receive())

    async def stop(self, frame: EndFrame) -> None:
        await self._rtp_end()
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        await self._rtp_end()
        await super().cancel(frame)

    async def _rtp_end(self) -> None:
        if self._rtp_task is not None:
            task, self._rtp_task = self._rtp_task, None
            await self.cancel_task(task)

    async def _rtp_receive(self) -> None:
        while True:
            pcm = audioop.ulaw2lin(await self._rtp_line.payloads.get(), 2)
            await self.push_audio_frame(
                InputAudioRawFrame(audio=pcm, sample_rate=LINE_RATE_HZ, num_channels=1)
            )


class _Output(BaseOutputTransport):
    def __init__(self, line: _Line, params: TransportParams) -> None:
        super().__init__(params)
        self._rtp_line = line
        self._rtp_due_s = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        codes = audioop.lin2ulaw(frame.audio, 2)
        for at in range(0, len(codes), FRAME):
            now_s, paused_s = time.monotonic(), None
            if now_s > self._rtp_due_s + PAUSE_S:
                paused_s, self._rtp_due_s = now_s - self._rtp_due_s, now_s
            if self._rtp_due_s > now_s:
                await asyncio.sleep(self._rtp_due_s - now_s)
            self._rtp_due_s += PACKET_MS / 1000
            self._rtp_line.send(codes[at : at + FRAME].ljust(FRAME, b"\xff"), paused_s)
        return True


class _RtpTransport(BaseTransport):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        params = TransportParams(audio_in_enabled=True, audio_out_enabled=True)
        self._rtp_input, self._rtp_output = _Input(line, params), _Output(line, params)

    def input(self) -> BaseInputTransport:
        return self._rtp_input

    def output(self) -> BaseOutputTransport:
        return self._rtp_output


def stock_pipeline(transport: BaseTransport, providers_url: str) -> PipelineWorker:
    """One call's pipeline and worker, with Pipecat's defaults wherever there are any."""
    key, url = "simulated", providers_url
    stt = OpenAISTTService(api_key=key, base_url=url, settings=OpenAISTTService.Settings(model="simulated"))
    instruction = "You are the receptionist of a bakery."
    settings = OpenAILLMService.Settings(model="simulated", system_instruction=instruction)
    llm = OpenAILLMService(api_key=key, base_url=url, settings=settings)
    tts = OpenAITTSService(
        api_key=key,
        base_url=url,
        # What this API gives; the output transport makes it the line's.
        sample_rate=OPENAI_SPEECH_RATE_HZ,
        settings=OpenAITTSService.Settings(model="simulated", voice="alloy"),
    )
    context = LLMContext()
    aggregators = LLMContextAggregatorPair(
        context, user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    stages = [
        transport.input(),
        stt,
        aggregators.user(),
        llm,
        tts,
        transport.output(),
        aggregators.assistant(),
    ]
    return PipelineWorker(
        Pipeline(stages),
        params=PipelineParams(audio_in_sample_rate=LINE_RATE_HZ, audio_out_sample_rate=LINE_RATE_HZ),
    )


@dataclass(slots=True)
class _Call:
    line: _Line
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    runner: WorkerRunner | None = None
    task: asyncio.Task[None] | None = None


class StockServer:
    """Answers calls with the stock pipeline."""

    def __init__(self, providers_url: str) -> None:
        self._providers_url = providers_url
        self._calls: dict[DialogId, _Call] = {}
        config = SipEndpointConfig(host=HOST, port=0, tcp=False, user_agent="stock")
        self.sip = SipEndpoint(config, self._event)

    def _event(self, event: SipEvent) -> None:
        match event:
            case InviteReceived():
                call = _Call(_Line())
                self._calls[event.dialog] = call
                call.task = asyncio.get_running_loop().create_task(self._run(event, call))
            case InviteConfirmed(dialog=dialog) if dialog in self._calls:
                self._calls[dialog].confirmed.set()
            case CallEnded(dialog=dialog) if dialog in self._calls:
                call = self._calls[dialog]
                if call.runner is not None:
                    call.task = asyncio.get_running_loop().create_task(call.runner.cancel(reason="hung up"))
            case _:
                return

    async def _run(self, event: InviteReceived, call: _Call) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: call.line, local_addr=(HOST, 0))
        try:
            if event.offer is None:
                self.sip.reject(event.dialog, 488)
                return
            agreed = negotiate(
                event.offer, address=HOST, port=transport.get_extra_info("sockname")[1], codecs=("PCMU",)
            )
            call.line.remote = agreed.remote
            worker = stock_pipeline(_RtpTransport(call.line), self._providers_url)
            runner = call.runner = WorkerRunner(handle_sigint=False)
            await runner.add_workers(worker)
            self.sip.answer(event.dialog, str(agreed.answer))
            running = asyncio.ensure_future(runner.run())
            await call.confirmed.wait()
            await worker.queue_frame(TTSSpeakFrame(GREETING))
            await running
        finally:
            call.line.close()
            self._calls.pop(event.dialog, None)


async def run(providers_url: str) -> None:
    """Answer calls until the process ends."""
    server = StockServer(providers_url)
    await server.sip.start()
    print(f"ready on {server.sip.local_port}", flush=True)
    await asyncio.Event().wait()


def main() -> int:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m perf.harness.stock", description=__doc__)
    parser.add_argument("--providers", required=True, metavar="URL", help="root of the providers' API")
    options = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="INFO")
    uvloop.run(run(options.providers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
