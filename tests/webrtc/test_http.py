"""The HTTP side of web calls on a running node: who gets a session, and what everybody else is told."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from mediaserver.webrtc.sessions import BURST, CANDIDATE_RATE
from mediaserver.webrtc.signalling import MAX_BODY_BYTES
from tenancy.routing import UNKNOWN
from tests.sim.node import NUMBER, RunningNode, running_node

CHROMIUM = Path(__file__).parents[2] / "native/webrtc/tests/fixtures/chromium_156.sdp"
OFFER = {"sdp": "v=0", "type": "offer"}


@asynccontextmanager
async def _client(running: RunningNode) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{running.node.http_port}") as client:
        yield client


async def _token(client: httpx2.AsyncClient) -> str:
    response = await client.post("/start", json={"number": NUMBER})
    assert response.status_code == 200, response.text
    return str(response.json()["sessionId"])


async def test_sessions_and_refusals(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, _client(running) as client:
        token = await _token(client)
        assert len(token) >= 22  # 128 bits
        assert token != await _token(client)
        assert running.node._status()["web_sessions"] == 2

        response = await client.post("/start", json={"number": "+15559999"})
        assert (response.status_code, response.json()) == (404, {"detail": UNKNOWN.text})
        response = await client.post("/api/offer", json=OFFER)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert "POST /start" in response.json()["detail"]
        response = await client.post("/sessions/guessed/api/offer", json=OFFER)
        assert (response.status_code, "no such session" in response.text) == (404, True)
        response = await client.patch(f"/sessions/{token}/api/offer", json={"pc_id": "x", "candidates": []})
        assert (response.status_code, "no such peer connection" in response.text) == (404, True)
        response = await client.post("/start", content=b"{" + b" " * MAX_BODY_BYTES)
        assert (response.status_code, "longer than" in response.text) == (413, True)
        response = await client.post("/start", content=b"number=1")
        assert (response.status_code, "not JSON" in response.text) == (400, True)
        assert response.headers["Cache-Control"] == "no-store"
        assert (await client.get("/sessions/x/api/offer")).status_code == 405


async def test_who_is_a_tenant_here_is_the_operators_to_know(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, _client(running) as client:
        for path in ("/status", "/metrics"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/api/numbers")).json() == []
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{running.node.operator_port}") as operator:
            status = (await operator.get("/status")).json()
            assert (status["ready"], status["numbers"]) == (True, {NUMBER: "Test Bakery"})
            assert {"refused_streams", "refused_keys", "read_passes_cut_short"} <= status["media"].keys()
            assert (await operator.get("/readyz")).status_code == 200
            assert (await operator.post("/start", json={"number": NUMBER})).status_code == 404


async def test_numbers_are_listed_where_the_operator_wants_it(tmp_path: Path) -> None:
    async with running_node(tmp_path, http={"list_numbers": True}) as running, _client(running) as client:
        listed = (await client.get("/api/numbers")).json()
        assert listed == [{"number": NUMBER, "business_name": "Test Bakery"}]


async def test_a_bad_offer_costs_nothing_and_leaves_the_session_good(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, _client(running) as client:
        token = await _token(client)
        for _ in range(2):
            response = await client.post(f"/sessions/{token}/api/offer", json=OFFER)
            assert response.status_code == 422, response.text
            assert response.json()["detail"].startswith("the offer cannot be used: ")
        snapshot = running.node.gate.snapshot()
        assert (snapshot.in_use, snapshot.double_releases, running.node.media_stats()["streams"]) == (0, 0, 0)


async def test_a_source_that_asks_too_often_is_told_when_to_ask_again(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, _client(running) as client:
        for _ in range(BURST):
            await client.post("/start", json={"number": "+15559999"})
        response = await client.post("/start", json={"number": NUMBER})
        assert response.status_code == 429
        assert 1 <= int(response.headers["Retry-After"]) <= 3


async def test_one_source_has_so_many_calls_waiting_for_their_connection(tmp_path: Path) -> None:
    http = {"trusted_proxies": ("127.0.0.1",), "waiting_calls_per_source": 2}
    async with running_node(tmp_path, http=http) as running, _client(running) as client:

        async def offered(source: str) -> httpx2.Response:
            path = f"/sessions/{await _token(client)}/api/offer"
            offer = {"sdp": CHROMIUM.read_text(), "type": "offer"}
            # A client may claim what it likes before the proxy adds the truth.
            claim = {"X-Forwarded-For": f"198.51.100.{secrets.randbelow(256)}, {source}"}
            return await client.post(path, json=offer, headers=claim)

        for _ in range(2):
            assert (await offered("203.0.113.1")).status_code == 200
        refused = await offered("203.0.113.1")
        assert (refused.status_code, "2 calls from your address" in refused.text) == (429, True)
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await offered("203.0.113.2")).status_code == 200
        status = running.node._status()
        assert (status["web_waiting_calls"], status["web_refusals"]) == (3, {429: 1})
        assert running.node.gate.snapshot().in_use == 3


async def test_nobody_is_believed_about_an_address_unless_the_operator_says_so(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, http={"waiting_calls_per_source": 1}) as running,
        _client(running) as client,
    ):
        statuses = []
        for source in ("203.0.113.1", "203.0.113.2"):
            path = f"/sessions/{await _token(client)}/api/offer"
            offer = {"sdp": CHROMIUM.read_text(), "type": "offer"}
            response = await client.post(path, json=offer, headers={"X-Forwarded-For": source})
            statuses.append(response.status_code)
        assert statuses == [200, 429]


async def test_candidates_without_end_are_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, _client(running) as client:
        path = f"/sessions/{await _token(client)}/api/offer"
        trickled = {"pc_id": "x", "candidates": [{"candidate": ""}] * 64}
        for _ in range(CANDIDATE_RATE.burst // 64):
            assert (await client.patch(path, json=trickled)).status_code == 404
        response = await client.patch(path, json=trickled)
        assert (response.status_code, "256 at once" in response.text) == (429, True)
        assert int(response.headers["Retry-After"]) >= 1


async def test_a_full_node_says_so_before_the_microphone_is_on(tmp_path: Path) -> None:
    async with running_node(tmp_path, slots=1) as running, _client(running) as client:
        lease = running.node.gate.request("bakery", 10, 0)
        response = await client.post("/start", json={"number": NUMBER})
        assert (response.status_code, response.json()) == (503, {"detail": "all lines are busy"})
        assert int(response.headers["Retry-After"]) >= 1
        assert hasattr(lease, "lease")
        running.node.gate.release(lease.lease, 0)
        await _token(client)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:1"])
async def test_pages_of_other_origins_place_no_calls(tmp_path: Path, origin: str) -> None:
    async with running_node(tmp_path) as running, _client(running) as client:
        response = await client.post("/start", json={"number": NUMBER}, headers={"Origin": origin})
        assert response.status_code == 403
        assert "Access-Control-Allow-Origin" not in response.headers
        # It may ask, as a page with a site key must; the request itself decides.
        response = await client.options("/start", headers={"Origin": origin})
        assert response.headers["Access-Control-Allow-Origin"] == origin
        response = await client.post("/sessions/guessed/api/offer", json=OFFER, headers={"Origin": origin})
        assert response.status_code == 403
        own = f"http://127.0.0.1:{running.node.http_port}"
        assert (await client.post("/start", json={"number": NUMBER}, headers={"Origin": own})).is_success


async def test_pages_of_allowed_origins_may(tmp_path: Path) -> None:
    shop = "https://shop.example"
    async with (
        running_node(tmp_path, http={"allowed_origins": (shop,)}) as running,
        _client(running) as client,
    ):
        preflight = await client.options("/sessions/x/api/offer", headers={"Origin": shop})
        assert preflight.status_code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == shop
        assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
        response = await client.post("/start", json={"number": NUMBER}, headers={"Origin": shop})
        assert response.is_success
        assert response.headers["Access-Control-Allow-Origin"] == shop
        refused = await client.post("/start", json={"number": "+15559999"}, headers={"Origin": shop})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (404, shop)


async def test_the_page_is_served_with_a_strict_policy(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, _client(running) as client:
        for path, kind in (
            ("/", "text/html"),
            ("/softphone.js", "text/javascript"),
            ("/softphone.css", "text/css"),
            ("/favicon.svg", "image/svg+xml"),
        ):
            response = await client.get(path)
            assert response.status_code == 200
            assert response.headers["Content-Type"].startswith(kind)
            assert response.headers["Content-Security-Policy"].startswith(
                "default-src 'none'; script-src 'self'"
            )
            assert "unsafe" not in response.headers["Content-Security-Policy"]
            assert (
                "//"
                not in response.text.replace("http://www.w3.org/2000/svg", "")
                .replace("https://…", "")
                .replace("http://localhost", "")
                or path == "/softphone.js"
            )
        assert "<script>" not in (await client.get("/")).text
