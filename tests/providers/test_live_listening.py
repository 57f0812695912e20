"""Calls over a recogniser that listens: a real server with its interface, in good health and in bad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

import mediaserver.providers.connections as connections_module
import mediaserver.providers.live_listening as listening_module
from mediaserver.errors import FailureCause
from mediaserver.pipeline.hearing import Hearing
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.services import Embedded, ProviderAccess, transcribers
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.connections import ProviderClient
from mediaserver.providers.utterance import BYTES_PER_MS, Utterance
from perf.live_stt import LiveFault, LiveStt, no_fault
from perf.simulators import Script, running
from tenancy.providers import ResolvedProvider
from tests.providers.stages import waits
from vault.resolver import Origin

KEY = "dg-canary-51aa"
BUDGETS = Budgets(stt_final_ms=1_200, stream_stall_ms=1_200, stream_total_ms=3_000, stt_hedge_ms=0)


class CountingEar:
    """Hears a word in each whole 100 ms: its number. So every sample that is lost or comes twice shows."""

    def __init__(self) -> None:
        self._pcm = bytearray()
        self._said = 0

    def hear(self, pcm: bytes) -> None:
        self._pcm += pcm

    def words(self) -> str:
        whole = len(self._pcm) // (100 * BYTES_PER_MS)
        words = [str(self._pcm[number * 100 * BYTES_PER_MS]) for number in range(self._said, whole)]
        self._said = whole
        return " ".join(words)


def spoken(*numbers: int) -> bytes:
    """100 ms for each number."""
    return b"".join(bytes([number]) * (100 * BYTES_PER_MS) for number in numbers)


class Call:
    """One call's hearing, fed as a call feeds it."""

    def __init__(self, hearing: Hearing) -> None:
        self.hearing = hearing
        self._number = 0
        self._pcm = b""

    def begin(self) -> None:
        self._number += 1
        self._pcm = b""

    def say(self, *numbers: int) -> None:
        pcm = spoken(*numbers)
        self._pcm += pcm
        self.hearing.hear(self._number, pcm, len(self._pcm))

    async def words(self) -> str:
        utterance = Utterance(self._number, self._pcm, len(self._pcm))
        frames = [frame async for frame in self.hearing.words_of(utterance)]
        return str(getattr(frames[-1], "text", ""))


@pytest.fixture
async def stt() -> AsyncIterator[tuple[LiveStt, str]]:
    server = LiveStt(CountingEar)
    async with server.serving() as url:
        yield server, url


@pytest.fixture
def care() -> ProviderCare:
    return ProviderCare.fresh()


@pytest.fixture
async def call_to(care: ProviderCare) -> AsyncIterator[Callable[..., Call]]:
    http = ProviderClient()
    hearings: list[Hearing] = []

    def make(url: str, *behind: str, budgets: Budgets = BUDGETS) -> Call:
        access = ProviderAccess(Embedded("http://127.0.0.1:9/v1"), http, care)
        chain = [
            ResolvedProvider("deepgram", Origin.TENANT, "named by the test", url, "nova-3", KEY),
            *(
                ResolvedProvider("openai", Origin.PLATFORM, "behind it", one, "whisper", "k")
                for one in behind
            ),
        ]
        hearing = Hearing(transcribers(chain, access), budgets, care, apology="One moment.", waits=waits())
        hearing.open()
        hearings.append(hearing)
        return Call(hearing)

    yield make
    for hearing in hearings:
        await hearing.close()
    await http.aclose()


async def test_what_is_said_is_sent_once_and_asked_for_at_each_pause(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call]
) -> None:
    server, url = stt
    call = call_to(url)
    call.begin()
    call.say(1, 2)
    call.say(3)
    assert await call.words() == "1 2 3"
    call.say(4)
    assert await call.words() == "1 2 3 4"
    call.begin()
    call.say(5)
    assert await call.words() == "5"
    assert server.counts["handshakes"] == 1
    assert server.counts["Finalize"] == 3
    assert server.authorizations == [f"Token {KEY}"]


async def test_words_that_are_asked_for_twice_are_the_same(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call]
) -> None:
    _, url = stt
    call = call_to(url)
    call.begin()
    call.say(1, 2)
    assert tuple(await asyncio.gather(call.words(), call.words())) == ("1 2", "1 2")


async def test_a_connection_that_was_lost_between_two_questions_costs_nothing_that_was_said(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call]
) -> None:
    server, url = stt
    call = call_to(url)
    call.begin()
    call.say(1, 2)
    assert await call.words() == "1 2"
    call.say(3)
    await server.hang_up()
    call.say(4)
    assert await call.words() == "1 2 3 4"
    assert server.counts["handshakes"] == 2


@pytest.mark.parametrize("fault", [LiveFault.RESET, LiveFault.GARBAGE, LiveFault.ERROR, LiveFault.HANG])
async def test_a_fault_of_an_answer_is_the_next_provider_s_and_the_one_after_begins_anew(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call], care: ProviderCare, fault: LiveFault
) -> None:
    server, url = stt
    with running(Script(transcripts=["from the next"])) as behind:
        call = call_to(url, behind)
        call.begin()
        call.say(1)
        server.answer = lambda: (0.0, fault)
        assert await call.words() == "from the next"
        server.answer = no_fault
        call.say(2)
        assert await call.words() == "1 2"
    figures = care.stats.snapshot().providers
    (failures,) = [one.failures for (stage, name), one in figures.items() if name.startswith("tenant:")]
    expected = {
        LiveFault.RESET: FailureCause.RESET,
        LiveFault.GARBAGE: FailureCause.GARBAGE,
        LiveFault.ERROR: FailureCause.GARBAGE,
        LiveFault.HANG: FailureCause.TIMEOUT,
    }
    assert dict(failures) == {expected[fault]: 1}


@pytest.mark.parametrize("fault", [LiveFault.UNMARKED, LiveFault.CUT])
async def test_an_answer_that_does_not_name_the_question_is_one(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call], fault: LiveFault
) -> None:
    server, url = stt
    server.answer = lambda: (0.0, fault)
    call = call_to(url)
    call.begin()
    call.say(1, 2, 3, 4)
    # The simulator's ear knows all; what is cut off is not covered by its results.
    assert await call.words() == "1 2 3 4"


async def test_a_key_that_is_refused_is_denied_and_nothing_is_sent(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call], care: ProviderCare
) -> None:
    server, url = stt
    server.handshake = lambda: (0.0, LiveFault.REFUSED)
    with running(Script(transcripts=["from the next"])) as behind:
        call = call_to(url, behind)
        call.begin()
        call.say(1)
        assert await call.words() == "from the next"
    snapshot = care.stats.snapshot().providers
    (failures,) = [one.failures for (_, name), one in snapshot.items() if name.startswith("tenant:")]
    assert dict(failures) == {FailureCause.DENIED: 1}
    assert KEY not in repr(snapshot)


async def test_a_handshake_that_hangs_is_over_with_its_budget(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call]
) -> None:
    server, url = stt
    server.handshake = lambda: (0.0, LiveFault.DEAF)
    with running(Script(transcripts=["from the next"])) as behind:
        call = call_to(url, behind)
        call.begin()
        call.say(1)
        assert await call.words() == "from the next"


async def test_a_breaker_that_is_open_keeps_what_is_said_from_its_provider(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call]
) -> None:
    server, url = stt
    server.answer = lambda: (0.0, LiveFault.ERROR)
    with running(Script(transcripts=["from the next"])) as behind:
        call = call_to(url, behind)
        for number in range(1, 20):
            call.begin()
            call.say(number)
            assert await call.words() == "from the next"
        asked = server.counts["Finalize"]
        assert asked < 19
        call.begin()
        call.say(1)
        assert await call.words() == "from the next"
        assert server.counts["Finalize"] == asked


@pytest.mark.parametrize("request_s", [120.0, 0.2])
async def test_a_connection_without_speech_is_kept_open_for_longer_than_a_request_may_take(
    stt: tuple[LiveStt, str],
    call_to: Callable[..., Call],
    monkeypatch: pytest.MonkeyPatch,
    request_s: float,
) -> None:
    server, url = stt
    monkeypatch.setattr(connections_module, "MAX_REQUEST_S", request_s)
    monkeypatch.setattr(listening_module, "KEEPALIVE_S", 0.05)
    call = call_to(url)
    async with asyncio.timeout(5):
        # More than twice as long as the shorter of the two.
        await server.until(lambda one: one.counts["KeepAlive"] >= 10)
    call.begin()
    call.say(1)
    assert await call.words() == "1"
    assert server.counts["handshakes"] == 1


async def test_a_server_that_takes_no_more_audio_is_given_up(
    call_to: Callable[..., Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_module, "MAX_WAITING", 4)
    stt = LiveStt(CountingEar, handshake=lambda: (0.0, LiveFault.DEAF))
    async with stt.serving() as url:
        with running(Script(transcripts=["from the next"])) as behind:
            call = call_to(url, behind)
            call.begin()
            for number in range(10):
                call.say(number)
            stt.handshake = no_fault
            assert await call.words() == "0 1 2 3 4 5 6 7 8 9"
        await call.hearing.close()


async def test_the_end_of_a_call_ends_its_connection(
    stt: tuple[LiveStt, str], call_to: Callable[..., Call]
) -> None:
    server, url = stt
    call = call_to(url)
    call.begin()
    call.say(1)
    await call.words()
    assert len(server.sockets) == 1
    await call.hearing.close()
    async with asyncio.timeout(5):
        await server.until(lambda one: not one.sockets)
