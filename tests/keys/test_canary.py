"""A tenant's key that can be recognised, through a whole node: calls that go well, and calls with every provider fault.

Then everything that the server wrote or answered is searched for it: logs at their most talkative, what the workers print,
databases with their write-ahead logs and whatever else is in the data folder, recordings, journals of calls in progress, every HTTP answer
and error body, metrics, the status, texts of errors and of the objects that hold keys.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest
from fastapi import FastAPI, Request, Response

from mediaserver.providers.failures import AnswerRefused, failure_of
from mediaserver.softphone.speech import Utterance
from perf.provider_faults import Fault
from perf.simulators import Script, running
from tests.keys.test_refused_keys import Refusal
from tests.sim.http import serving
from tests.sim.node import RunningNode, running_node, tenant
from tests.sim.vault import keep, vault_config
from tests.telemetry.conftest import LogsTo
from tests.tenancy.conftest import dialled
from tests.vault.test_canary import Canaries

KEY = "canary/7f3a+9c51=d2e84b60?Zq7vX2mN9pL4"
"""Of no form that a key is known by, and with letters that URLs and base64 write otherwise."""
BUDGETS = {"stt_final_ms": 1_500, "llm_first_token_ms": 1_500, "tts_first_audio_ms": 1_500}
AT_ONCE = 5
"""Calls."""
REFUSALS = {
    "denied": Refusal(403, ""),
    "unpaid": Refusal(402, ""),
    "empty": Refusal(429, "", code="insufficient_quota"),
    "hasty": Refusal(429, "", retry_after="60"),
    "broken": Refusal(500, ""),
}


def canaries() -> Canaries:
    """The key in every form that a careless line of code might give it."""
    made = Canaries()
    made.values = {"the key": KEY.encode()}
    return made


@dataclass
class Written:
    """What came out of a node, by where."""

    places: dict[str, bytes] = field(default_factory=dict)

    def add(self, place: str, what: object) -> None:
        given = what if isinstance(what, bytes) else str(what).encode("utf-8", "replace")
        self.places[place] = self.places.get(place, b"") + b"\n" + given

    def add_files(self, when: str, directory: Path) -> None:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self.add(f"{when}: {path.relative_to(directory)}", path.read_bytes())

    def leaks(self) -> list[str]:
        known = canaries()
        return [f"{place}: {form}" for place, what in self.places.items() for form in known.found(what)]


@contextlib.contextmanager
def parrot(seen: list[str]) -> Iterator[str]:
    """A provider that refuses every request by repeating all that it was sent: in its body, its headers and its reason."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "HEAD"])
    async def refuse(request: Request) -> Response:
        authorization = request.headers.get("authorization", "")
        seen.append(authorization)
        heard = f"{(await request.body()).decode('latin-1')[-2_000:]} {dict(request.headers)}"
        if request.url.path.endswith("/chat/completions"):
            # As an error within a stream that has begun: that one's text becomes the exception's.
            error = orjson.dumps({"error": {"message": heard, "code": authorization}}).decode()
            return Response(f"data: {error}\n\n", media_type="text/event-stream")
        error = orjson.dumps(
            {"error": {"message": heard, "code": authorization, "type": authorization}}
        ).decode()
        headers = {"Retry-After": authorization.rpartition(" ")[2] or "1", "X-Heard": authorization}
        return Response(error, status_code=429, headers=headers, media_type="application/json")

    with serving(app) as root:
        yield root


@contextlib.contextmanager
def providers(seen: list[str]) -> Iterator[dict[str, str]]:
    """Where each kind of bad provider listens."""
    with contextlib.ExitStack() as stack:
        urls = {"parrot": stack.enter_context(parrot(seen))}
        for fault in Fault:
            script = Script()
            for behaviour in (script.transcription, script.chat, script.speech):
                behaviour.fault = fault
            urls[fault.value] = stack.enter_context(running(script))
        for name, refusal in REFUSALS.items():
            script = Script()
            refusal.set(script.transcription, script.chat, script.speech)
            urls[name] = stack.enter_context(running(script))
        yield urls


async def add_tenants(node: RunningNode, directory: Path, urls: dict[str, str], good: str) -> dict[str, str]:
    """A tenant for each bad provider, with the canary as its key for it and a good provider behind; their numbers."""
    numbers = {}
    for index, (name, url) in enumerate(urls.items()):
        bad = {"kind": "openai", "base_url": url, "model": "bad", "key": "own"}
        ears = {"kind": "deepgram", "base_url": url, "key": "own"}
        behind = {"kind": "openai", "base_url": good, "model": "good"}
        numbers[name] = f"+1555020{index:04}"
        tenant_id = name.replace("_", "-")
        config = tenant(
            good,
            tenant_id=tenant_id,
            numbers=[numbers[name]],
            providers={"stt": [ears, bad, behind], "llm": [bad, behind], "tts": [bad, behind]},
        )
        await node.node.registry.import_tenant(config, author="test", reason="canary")
        await keep(directory, tenant_id, own=KEY)
    return numbers


@contextlib.asynccontextmanager
async def journals(node: RunningNode, written: Written) -> AsyncIterator[None]:
    """Look at the journals of the calls in progress now and then."""

    async def look() -> None:
        while True:
            for call in node.node.workers.calls if node.node._pool is not None else ():
                written.add("journals", call.journal._restored().to_json())
            await asyncio.sleep(0.2)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()


async def http_answers(node: RunningNode, written: Written) -> None:
    """Ask both listeners for what they have and for what they have not."""
    operator = f"http://127.0.0.1:{node.node.operator_port}"
    callers = f"http://127.0.0.1:{node.node.http_port}"
    wrong: list[tuple[str, str]] = [("POST", f"{callers}/start"), ("POST", f"{callers}/api/offer")]
    asked = [
        ("GET", f"{base}{path}")
        for base in (operator, callers)
        for path in (
            "/",
            "/status",
            "/metrics",
            "/healthz",
            "/readyz",
            "/api/numbers",
            "/docs",
            "/openapi.json",
            "/keys",
        )
    ]
    async with aiohttp.ClientSession() as session:
        for method, url in (*asked, *wrong):
            async with session.request(
                method, url, json={"number": 5} if method == "POST" else None
            ) as answer:
                written.add("HTTP", f"{answer.status} {answer.headers}")
                written.add("HTTP", await answer.read())
    assert b"receptionist_key_refusals_total" in written.places["HTTP"]
    assert b'"keys_held_off"' in written.places["HTTP"]


def texts_of_errors(node: RunningNode, contexts: list[object], written: Written) -> None:
    """What holds keys, and errors about them, as a debugger or a careless log line would write them."""
    for each in contexts:
        written.add("texts", f"{each!r} {each} {orjson.dumps(each, default=repr)!r}")
    written.add("texts", f"{node.node.registry.keys!r} {vars(node.node.registry.keys)}")
    refused = AnswerRefused(429, None, 5.0)
    written.add("texts", f"{refused!r} {failure_of('tenant:bad', refused)!r}")


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_key_in_the_vault_is_not_seen_again(
    workers: int,
    tmp_path: Path,
    question: Utterance,
    logs_to: LogsTo,
    capfd: pytest.CaptureFixture[str],
) -> None:
    log, redactor = logs_to("DEBUG", "json")
    written, seen = Written(), list[str]()
    good = Script()
    with providers(seen) as urls, running(good) as good_url:
        await keep(tmp_path, "bakery", own=KEY)
        mine = {"kind": "openai", "base_url": good_url, "model": "good", "key": "own"}
        async with running_node(
            tmp_path,
            workers=workers,
            vault=vault_config(tmp_path),
            budgets=BUDGETS,
            redactor=redactor,
            log_level="DEBUG",
            log_format="json",
            providers={"stt": [mine], "llm": [mine], "tts": [mine]},
        ) as node:
            numbers = await add_tenants(node, tmp_path, urls, good_url)
            free = asyncio.Semaphore(AT_ONCE)

            async def call(number: str) -> bool:
                async with free:
                    report = await node.call(
                        question, number=number, record=tmp_path / "data" / f"{number}.wav"
                    )
                    return report.answered

            async with journals(node, written):
                answered = await asyncio.gather(call("+15550199"), *map(call, numbers.values()))
                written.add("status", node.node._status())
            assert all(answered)
            async with asyncio.timeout(20):
                await node.node.idle()
            assert good.requests["chat"] >= 1
            assert any(KEY in each for each in seen), "the canary was sent to its provider"
            contexts: list[object] = [
                await node.node.registry.context_for(dialled(number), call_id="later")
                for number in numbers.values()
            ]
            texts_of_errors(node, contexts, written)
            await http_answers(node, written)
            assert redactor(f"a careless line: {KEY}") == "a careless line: [redacted]"
            written.add_files("running", tmp_path / "data")
        written.add_files("afterwards", tmp_path / "data")
    out, err = capfd.readouterr()
    written.add("log", log.getvalue())
    written.add("printed", out + err)
    everything = written.places["log"] + written.places["printed"]
    assert b"vault.db-wal" in b"".join(place.encode() for place in written.places)
    assert b"key_refused" in everything
    assert b"providers_resolved" in everything
    if workers:
        assert b'"worker":"' in written.places["printed"], "the worker's log is among what is searched"
        assert written.places["journals"]
    assert written.leaks() == []


@pytest.mark.parametrize(
    "careless",
    [
        KEY,
        base64.b64encode(b"user:" + KEY.encode()).decode(),
        urllib.parse.quote(KEY, safe=""),
        urllib.parse.quote(KEY),
        orjson.dumps({"api_key": KEY}).decode(),
        repr(KEY.encode()),
    ],
)
def test_a_leak_would_be_found_wherever_it_was(careless: str, tmp_path: Path) -> None:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "a.db-wal").write_bytes(b"\x00\xff" + careless.encode() + b"\x00")
    written = Written()
    written.add_files("running", tmp_path)
    written.add("log", "nothing")
    assert written.leaks()
    assert all(leak.startswith("running: tenants/a.db-wal") for leak in written.leaks())
    clean = Written()
    clean.add("log", "nothing")
    assert clean.leaks() == []
