"""Offers at the edge: counted, answered beside the event loop, and nothing is kept of one that came to nothing."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from mediaserver._native import MediaEngine, MediaError
from mediaserver.calls import Switchboard
from mediaserver.media_link import EngineHub
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import CALLS_REFUSED
from mediaserver.webrtc.edge import WebEdge
from mediaserver.webrtc.sessions import MAX_OFFERS
from mediaserver.webrtc.signalling import Offer, StartRequest, WebRefusal
from tenancy import Trunks

OFFER = Offer(sdp="v=0", type="offer")


@dataclass
class SlowEngine:
    """Takes its time over an offer, and refuses or accepts it."""

    accepts: bool = False
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_go: threading.Event = field(default_factory=threading.Event)
    closed: list[int] = field(default_factory=list)
    has_closed: threading.Event = field(default_factory=threading.Event)
    plays: bool = True

    def open_webrtc(self, **_: object) -> tuple[int, str]:
        self.entered.release()
        assert self.may_go.wait(10)
        if not self.accepts:
            raise MediaError("no audio in it")
        return 7, "answer"

    def play(self, *_: object) -> None:
        if not self.plays:
            raise MediaError("full")

    def close_stream(self, stream: int) -> None:
        self.closed.append(stream)
        self.has_closed.set()


class Exchange:
    """A switchboard's leases alone."""

    def __init__(self, engine: SlowEngine) -> None:
        self.hub = EngineHub(cast("MediaEngine", engine))
        self.meters = Meters()
        self.leases = 0
        turns = SimpleNamespace(
            vad_threshold=0.5, speech_start_ms=96, speech_stop_ms=200, preroll_ms=300, pause_ms=20
        )
        config = SimpleNamespace(turn_taking=turns)
        self._tenant = SimpleNamespace(called_number="+15550100", tenant_id="bakery", config=config)

    async def tenant_for(self, _number: str, _call_id: str) -> object:
        return self._tenant

    def look_for_room(self, _tenant: object) -> None:
        pass

    def admit(self, _tenant: object) -> int:
        self.leases += 1
        return self.leases

    def give_back(self, _lease: int) -> None:
        self.leases -= 1


async def _session(engine: SlowEngine) -> tuple[WebEdge, Exchange, str]:
    exchange = Exchange(engine)
    edge = WebEdge(cast("Switchboard", exchange), Trunks().web)
    return edge, exchange, await edge.start(StartRequest(number="+15550100"), "192.0.2.1")


async def test_failed_offers_count_and_beyond_so_many_the_session_is_told_to_wait() -> None:
    engine = SlowEngine()
    engine.may_go.set()
    edge, exchange, token = await _session(engine)
    for _ in range(MAX_OFFERS):
        with pytest.raises(WebRefusal) as caught:
            await edge.offer(token, OFFER, "192.0.2.1")
        assert caught.value.status == 422
    with pytest.raises(WebRefusal) as caught:
        await edge.offer(token, OFFER, "192.0.2.1")
    assert caught.value.status == 429
    assert 1 <= (caught.value.retry_after_s or 0) <= 60
    assert exchange.leases == 0
    assert exchange.meters.value(CALLS_REFUSED, "unacceptable_offer") == MAX_OFFERS


async def test_while_an_offer_is_answered_the_loop_runs_and_the_session_takes_no_other() -> None:
    engine = SlowEngine()
    edge, exchange, token = await _session(engine)
    first = asyncio.create_task(edge.offer(token, OFFER, "192.0.2.1"))
    assert await asyncio.to_thread(engine.entered.acquire, timeout=10)
    with pytest.raises(WebRefusal) as caught:
        await edge.offer(token, OFFER, "192.0.2.1")
    assert caught.value.status == 409
    engine.may_go.set()
    with pytest.raises(WebRefusal):
        await first
    assert exchange.leases == 0


async def test_a_leg_that_opened_for_a_cancelled_request_is_closed() -> None:
    engine = SlowEngine(accepts=True)
    edge, exchange, token = await _session(engine)
    request = asyncio.create_task(edge.offer(token, OFFER, "192.0.2.1"))
    assert await asyncio.to_thread(engine.entered.acquire, timeout=10)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert exchange.leases == 0
    assert engine.closed == []
    engine.may_go.set()
    assert await asyncio.to_thread(engine.has_closed.wait, 10)
    assert engine.closed == [7]


async def test_a_call_keeps_its_leg_when_the_new_one_does_not_take_its_audio() -> None:
    engine = SlowEngine()
    hub = EngineHub(cast("MediaEngine", engine))
    link = hub.attach(1, lambda _: None)
    link.play(b"\0\0", 8_000, link.next_mark())
    engine.plays = False
    with pytest.raises(MediaError):
        hub.move(link, 2)
    assert (link.stream, engine.closed) == (1, [])
    engine.plays = True
    hub.move(link, 2)
    assert (link.stream, engine.closed) == (2, [1])
