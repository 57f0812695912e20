"""``mediaserver call``: prepare the voice, the ear and, if wanted, a server; place the call; report."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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

if TYPE_CHECKING:
    from mediaserver.softphone.web_phone import WebPhone

DEFAULT_SIP_PORT = 5060
DEFAULT_WEB_PORTS = {"http": 80, "https": 443}
SERVER_START_TIMEOUT_S = 120.0
SERVER_STOP_TIMEOUT_S = 10.0
MAX_UTTERANCES = 50


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the command line asked for."""

    uri: str | None
    """Whom to call over SIP."""
    webrtc: str | None
    """Or the server to call over WebRTC, and there this number."""
    number: str | None
    say: tuple[str, ...]
    wav: tuple[Path, ...]
    record: Path | None
    transport: str
    start_server: bool
    codec: str | None = None
    """The one codec to offer; None: PCMU and PCMA."""
    srtp: bool = False
    """Whether to offer encrypted media alone."""


@dataclass(frozen=True, slots=True)
class WebTarget:
    """A server that takes calls from browsers."""

    url: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> WebTarget:
        """Read a server's root URL. Raises `MediaServerError`."""
        try:
            parts = urlsplit(url)
            port = parts.port or DEFAULT_WEB_PORTS[parts.scheme]
        except (KeyError, ValueError):
            raise MediaServerError(f"{url!r} is not a URL such as http://127.0.0.1:8080") from None
        if not parts.hostname or parts.path.rstrip("/") or parts.query or parts.fragment:
            raise MediaServerError(f"{url!r} is not the root of a server, such as http://127.0.0.1:8080")
        return cls(f"{parts.scheme}://{parts.netloc}", parts.hostname, port)

    def __str__(self) -> str:
        return self.url


async def place_call(request: CallRequest, say: Callable[[str], None]) -> CallReport:
    """Do what ``mediaserver call`` does; ``say`` prints a line as the conversation goes."""
    target = _target(request)
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
            await stack.enter_async_context(_server(target))
        models = ModelProcess()
        await models.start()
        stack.push_async_callback(models.close)
        ear = Ear(models.base_url)
        stack.push_async_callback(ear.close)
        say(f"calling {target}")
        return await _phone(request, target, utterances, ear, say).call()


def _phone(
    request: CallRequest,
    target: SipUri | WebTarget,
    utterances: tuple[Utterance, ...],
    ear: Ear,
    say: Callable[[str], None],
) -> Phone | WebPhone:
    if isinstance(target, WebTarget):
        # aiortc is an extra, takes a third of a second to import, and a call over SIP needs none of it.
        try:
            from mediaserver.softphone.web_phone import WebPhone, WebPhoneOptions
        except ModuleNotFoundError as error:
            raise MediaServerError(
                f"--webrtc needs the package {error.name}: pip install 'ai-receptionist-mediaserver[softphone]'"
            ) from error

        return WebPhone(
            WebPhoneOptions(
                url=target.url, number=request.number, utterances=utterances, record=request.record
            ),
            ear,
            say,
        )
    options = PhoneOptions(
        target=target,
        utterances=utterances,
        local_host=_our_address(target),
        vad_model=silero_weights(),
        transport=request.transport,
        codecs=NARROWBAND_ONLY if request.codec is None else (request.codec,),
        srtp=SrtpPolicy.REQUIRED if request.srtp else SrtpPolicy.OFF,
        record=request.record,
    )
    return Phone(options, ear, say)


def _target(request: CallRequest) -> SipUri | WebTarget:
    """Whom to call. Raises `MediaServerError` where that is not said, or said twice."""
    if (request.uri is None) == (request.webrtc is None):
        raise MediaServerError("whom to call: give either a SIP URI or --webrtc URL")
    if request.webrtc is not None:
        return WebTarget.parse(request.webrtc)
    if request.number is not None:
        raise MediaServerError("--number goes with --webrtc; a SIP URI has its number")
    try:
        return SipUri.parse(request.uri or "")
    except UriError as error:
        raise MediaServerError(str(error)) from error


async def _utterances(request: CallRequest) -> tuple[Utterance, ...]:
    spoken = [await synthesise(text) for text in request.say]
    played = [await from_wav(path) for path in request.wav]
    return (*spoken, *played)


def _our_address(target: SipUri) -> str:
    try:
        return local_address_towards(target.host)
    except OSError as error:
        raise MediaServerError(f"no route to {target.host}: {error}") from error


async def _answers(target: SipUri | WebTarget) -> bool:
    """Whether something accepts TCP there; our server listens for SIP on both transports."""
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
async def _server(target: SipUri | WebTarget) -> AsyncIterator[None]:
    """A demo server of our own for as long as the call lasts."""
    variable = "MEDIASERVER_HTTP_PORT" if isinstance(target, WebTarget) else "MEDIASERVER_SIP_PORT"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mediaserver", "serve", "--log-level", "WARNING",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, variable: str(target.port or DEFAULT_SIP_PORT)},
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
