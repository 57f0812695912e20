"""Whether the process lives and whether calls would be admitted: the beat of the loop, and the routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from mediaserver.telemetry.health import BEAT_S, REMEMBERED_S, STALL_S, Beat, LoopWatch
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.metrics import Telemetry
from mediaserver.telemetry.routes import metrics_routes, probe_routes
from mediaserver.telemetry.schema import LOOP_LAG_SECONDS


@given(st.lists(st.floats(0.0, 3.0), max_size=50))
def test_a_stall_counts_for_a_while_and_is_forgotten(lags_s: list[float]) -> None:
    beat, now_s = Beat(0.0), 0.0
    stalled_s = -REMEMBERED_S - 1
    for lag_s in lags_s:
        now_s += BEAT_S + lag_s
        overdue = now_s - beat.now_s - BEAT_S > STALL_S
        assert beat.steady(now_s) == (not overdue and now_s - stalled_s > REMEMBERED_S)
        measured_s = beat.beat(now_s)
        assert measured_s == pytest.approx(lag_s, abs=1e-6)
        if measured_s > STALL_S:
            stalled_s = now_s
        assert beat.steady(now_s) == (now_s - stalled_s > REMEMBERED_S)


async def test_a_loop_that_was_held_up_is_noticed_even_before_its_next_beat() -> None:
    meters = Meters()
    watch = LoopWatch(meters, "edge")
    steady = [watch.steady]
    watch.start()
    steady.append(watch.steady)
    time.sleep(STALL_S + BEAT_S + 0.05)  # noqa: ASYNC251 - what must not happen
    steady.append(watch.steady)
    async with asyncio.timeout(5):
        while not meters.count(LOOP_LAG_SECONDS, "edge"):  # noqa: ASYNC110 - a meter sets no event
            await asyncio.sleep(0)
    steady.append(watch.steady)
    watch.stop()
    assert steady == [True, True, False, False]


def _app(telemetry: Telemetry, alive: Mapping[str, bool], ready: Mapping[str, bool]) -> httpx2.AsyncClient:
    app = FastAPI()
    app.include_router(probe_routes(lambda: alive, lambda: ready))
    app.include_router(metrics_routes(telemetry))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://node")


async def test_every_check_is_named_and_one_that_fails_is_enough() -> None:
    alive, ready = {"event_loop": True, "media": True}, {"started": True, "models": True}
    async with _app(Telemetry(), alive, ready) as client:
        response = await client.get("/healthz")
        assert (response.status_code, response.json()) == (200, {"status": "ok", "checks": alive})
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "ready", "checks": ready})
        assert response.headers["Cache-Control"] == "no-store"
        alive["media"] = ready["models"] = False
        response = await client.get("/healthz")
        assert (response.status_code, response.json()) == (503, {"status": "failing", "checks": alive})
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "not ready", "checks": ready})


async def test_metrics_come_in_the_format_that_is_asked_for() -> None:
    async with _app(Telemetry(), {}, {}) as client:
        classic = await client.get("/metrics")
        assert classic.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert len(list(parse_classic(classic.text))) > 20
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
        modern = await client.get("/metrics", headers={"Accept": accept})
        assert modern.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert modern.text.endswith("# EOF\n")
        assert len(list(parse_openmetrics(modern.text))) > 20  # type: ignore[no-untyped-call]
        assert (await client.post("/metrics")).status_code == 405
