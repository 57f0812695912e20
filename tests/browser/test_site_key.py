"""A business's own web page in a real browser: its site key reaches its tenant, whatever the page's origin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, expect

from config.site_keys import SiteKey
from mediaserver.telemetry.schema import CALLS_REFUSED
from tests.sim.node import NUMBER, running_node

KEY = str(SiteKey.from_random(b"s" * 16))
START = """([url, body]) => fetch(`${url}/start`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
}).then(async (response) => [response.status, await response.json()], (error) => [0, String(error)])"""
OFFER = """async ([url, token]) => {
    const connection = new RTCPeerConnection();
    connection.addTransceiver('audio');
    connection.createDataChannel('chat');
    await connection.setLocalDescription();
    const { sdp, type } = connection.localDescription;
    const path = `${url}/sessions/${token}/api/offer`;
    const headers = { 'Content-Type': 'application/json' };
    const send = (method, body) => fetch(path, { method, headers, body: JSON.stringify(body) });
    const answer = await (await send('POST', { sdp, type })).json();
    const trickled = await (await send('PATCH', { pc_id: answer.pc_id, candidates: [] })).json();
    await connection.setRemoteDescription(answer);
    await new Promise((done) => {
        const look = () => connection.connectionState === 'connected' && done();
        connection.onconnectionstatechange = look;
        look();
    });
    return trickled.status;
}"""


@asynccontextmanager
async def _site() -> AsyncIterator[str]:
    """A web site of its own, with one page; its origin.

    On the loopback: a browser lets no page from elsewhere at what is on this machine.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}<p>A page.".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_page_of_another_origin_calls_its_tenant_and_no_other_page_does(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        _site() as shop,
        _site() as elsewhere,
        running_node(tmp_path, site_keys=[{"key": KEY, "origins": [shop]}]) as running,
    ):
        url = f"http://127.0.0.1:{running.node.http_port}"
        page = await browser.new_page()
        await page.goto(elsewhere)
        status, answer = await page.evaluate(START, [url, {"site_key": KEY}])
        assert (status, "this page may not call" in answer["detail"]) == (403, True)
        # Without a key nothing tells a page of elsewhere anything.
        assert (await page.evaluate(START, [url, {"number": NUMBER}]))[0] == 0
        await page.goto(shop)
        status, answer = await page.evaluate(START, [url, {"site_key": KEY}])
        assert status == 200, answer
        assert await page.evaluate(OFFER, [url, answer["sessionId"]]) == "success"
        assert running.node.gate.snapshot().in_use == 1
        await page.close()
        await running.node.idle()
        (record,) = await running.node.registry.calls("bakery")
        assert record.called == KEY
        assert running.node.telemetry.meters.value(CALLS_REFUSED, "origin_refused") == 1


async def test_our_own_page_calls_by_the_key_in_its_address(browser: Browser, tmp_path: Path) -> None:
    async with running_node(
        tmp_path, site_keys=[{"key": KEY, "origins": ["https://shop.example"]}]
    ) as running:
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{running.node.http_port}/?site_key={KEY}")
        await expect(page.get_by_role("status")).to_have_text("Ready.")
        await page.get_by_role("button", name="Call", exact=True).click()
        # It is a page like any other: its origin is not on the tenant's list.
        await expect(page.get_by_role("alert")).to_contain_text("this page may not call")
