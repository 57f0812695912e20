"""``mediaserver call``: prepare the voice, the ear and, if wanted, a server; place the call; report."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mediaserver.addresses import is_local, local_address_towards
from mediaserver.errors import MediaServerError
from mediaserver.media_session import NARROWBAND_ONLY
from mediaserver.models.process import ModelProcess
from mediaserver.softphone.listening import Ear
from mediaserver.softphone.phone import Phone, PhoneOptions
from mediaserver.softphone.report import CallReport
from mediaserver.softphone.speech import Utterance, from_wav, synthesise
from mediaserver.vad_weights import silero_weights
from sipbridge import SipUri, UriError
from sipbridge.sdp import SrtpPolicy

DEFAULT_SIP_PORT = 5060
SERVER_START_TIMEOUT_S = 120.0
SERVER_STOP_TIMEOUT_S = 10.0
MAX_UTTERANCES = 50


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the command line asked for."""

    uri: str
    say: tuple[str, ...]
    wav: tuple[Path, ...]
    record: Path | None
    transport: str
    start_server: bool
    codec: str | None = None
    """The one codec to offer; None: PCMU and PCMA."""
    srtp: bool = False
    """Whether to offer encrypted media alone."""


async def place_call(request: CallRequest, say: Callable[[str], None]) -> CallReport:
    """Do what ``mediaserver call`` does; ``say`` prints a line as the conversation goes."""
    try:
        target = SipUri.parse(request.uri)
    except UriError as error:
        raise MediaServerError(str(error)) from error
    if len(request.say) + len(request.wav) > MAX_UTTERANCES:
        raise MediaServerError(f"more than {MAX_UTTERANCES} things to say")
    if not request.say and not request.wav:
        raise MediaServerError("nothing to say: give --say TEXT or --wav FILE")
    if request.record is not None:
        request.record.parent.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        utterances = await _utterances(request)
        if request.start_server and not await _answers(target):
            if not is_local(target.host):
                raise MediaServerError(f"--start-server starts one on this machine, and {target.host} is not")
            say("no server answers there: starting one for this call")
            await stack.enter_async_context(_server(target.port or DEFAULT_SIP_PORT))
        models = ModelProcess()
        await models.start()
        stack.push_async_callback(models.close)
        ear = Ear(models.base_url)
        stack.push_async_callback(ear.close)
        say(f"calling {target}")
        phone = Phone(
            PhoneOptions(
                target=target,
                utterances=utterances,
                local_host=_our_address(target),
                vad_model=silero_weights(),
                transport=request.transport,
                codecs=NARROWBAND_ONLY if request.codec is None else (request.codec,),
                srtp=SrtpPolicy.REQUIRED if request.srtp else SrtpPolicy.OFF,
                record=request.record,
            ),
            ear,
            say,
        )
        return await phone.call()


async def _utterances(request: CallRequest) -> tuple[Utterance, ...]:
    spoken = [await synthesise(text) for text in request.say]
    played = [await from_wav(path) for path in request.wav]
    return (*spoken, *played)


def _our_address(target: SipUri) -> str:
    try:
        return local_address_towards(target.host)
    except OSError as error:
        raise MediaServerError(f"no route to {target.host}: {error}") from error


async def _answers(target: SipUri) -> bool:
    """Whether something accepts SIP over TCP there; our server listens on both transports."""
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(target.host, target.port or DEFAULT_SIP_PORT), timeout=1.0
        )
    except (OSError, TimeoutError):
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def _server(sip_port: int) -> AsyncIterator[None]:
    """A demo server of our own for as long as the call lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mediaserver", "serve", "--log-level", "WARNING",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "MEDIASERVER_SIP_PORT": str(sip_port)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(SERVER_START_TIMEOUT_S):
                while line := await process.stdout.readline():
                    if line.startswith(b"ready"):
                        break
                else:
                    raise MediaServerError(f"the server did not start (exit status {await process.wait()})")
        except TimeoutError:
            raise MediaServerError(
                f"the server was not ready within {SERVER_START_TIMEOUT_S:.0f} s"
            ) from None
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), SERVER_STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
