"""Pipecat's published JavaScript client against this server, unchanged."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.conftest import QUESTION, Server

SOURCES = Path(__file__).parent / "stock_client"
HTML = '<!doctype html><meta charset="utf-8"><title>stock client</title><link rel="icon" href="/favicon.svg">'


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client with its packages as one script."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here: install Node.js")
    directory = tmp_path_factory.mktemp("stock")
    shutil.copytree(SOURCES, directory, dirs_exist_ok=True)
    _run(directory, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    esbuild = str(directory / "node_modules" / ".bin" / "esbuild")
    _run(directory, esbuild, "client.js", "--bundle", "--format=iife", "--outfile=bundle.js")
    return directory / "bundle.js"


def _run(directory: Path, *command: str) -> None:
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
async def stock(page: Page, demo_server: Server, bundle: Path) -> Page:
    """A page of the server's own origin with the client in it."""
    await page.route("**/stock.html", lambda route: route.fulfill(body=HTML, content_type="text/html"))
    await page.goto(f"{demo_server.url}/stock.html")
    await page.add_script_tag(path=bundle)
    return page


async def _told(page: Page, name: str) -> list[Any]:
    data: list[Any] = await page.evaluate(
        "name => stock.told.filter((entry) => entry.name === name).map((entry) => entry.data)", name
    )
    return data


async def _wait(page: Page, condition: str, timeout_s: int = 30) -> None:
    await page.wait_for_function(condition, timeout=timeout_s * 1000)


async def test_the_published_client_connects_talks_and_disconnects(stock: Page) -> None:
    ready = await stock.evaluate(
        "stock.client.startBotAndConnect({ endpoint: '/start', requestData: { body: { number: '+15550100' } } })"
    )
    assert ready["version"] == "2.1.0"
    assert await stock.evaluate("stock.client.state") == "ready"
    await _wait(
        stock,
        "() => stock.told.some(({ name, data }) => name === 'onBotTranscript' && /Bright Smile/.test(data.text))",
    )
    await _wait(stock, "() => stock.names().includes('onUserTranscript')")
    await _wait(
        stock,
        "() => stock.told.some(({ name, data }) => name === 'onBotTranscript' && /Friday/.test(data.text))",
    )
    (heard,) = await _told(stock, "onUserTranscript")
    assert heard["final"]
    assert re.sub(r"\W", "", heard["text"].lower()) == re.sub(r"\W", "", QUESTION.lower())
    names = await stock.evaluate("stock.names()")
    for name in ("UserStarted", "UserStopped", "BotStarted", "BotStopped"):
        assert f"on{name}Speaking" in names
    assert {output["spoken_status"] for output in await _told(stock, "onBotOutput")} == {"new", "completed"}
    await stock.evaluate("stock.client.sendDTMF('12#')")
    refused = await stock.evaluate(
        "stock.client.sendClientRequest('weather', {}).then(() => '', (refusal) => refusal.data.error)"
    )
    assert "not served" in refused
    await stock.evaluate("stock.client.disconnect()")
    assert await stock.evaluate("stock.client.state") == "disconnected"
    assert not await _told(stock, "onError")


async def test_a_bearer_token_and_one_address_serve_as_well(stock: Page) -> None:
    await stock.evaluate(
        """async () => {
            const response = await fetch('/start', {method: 'POST', body: JSON.stringify({number: '+15550100'})});
            const { sessionId } = await response.json();
            const headers = new Headers({ Authorization: `Bearer ${sessionId}` });
            await stock.client.connect({ webrtcRequestParams: { endpoint: '/api/offer', headers } });
        }"""
    )
    assert await stock.evaluate("stock.client.state") == "ready"
    await stock.evaluate("stock.client.disconnect()")


async def test_an_unknown_number_is_an_error_that_the_client_can_show(stock: Page) -> None:
    said = await stock.evaluate(
        """stock.client.startBotAndConnect({ endpoint: '/start', requestData: { number: '+15559999' } })
            .then(() => '', (error) => error.message)"""
    )
    assert said == "there is no such number or key here"
