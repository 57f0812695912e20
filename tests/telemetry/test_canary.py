"""Nothing that a node prints has a key, a caller's word or an answer's in it, whatever happens in the call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from fastapi import FastAPI, Request, Response

from mediaserver.softphone.speech import Utterance
from mediaserver.telemetry.logs import LogFormat
from perf.simulators import Script, running
from tests.sim.http import serving
from tests.sim.node import running_node
from tests.telemetry.conftest import LogsTo

KEY = "canary-7f3a9c51d2e84b60"
"""Of no form that a key is known by."""
CALLER = ("quokka", "marmalade", "xylophone")
ANSWER = ("zeppelin", "rhubarb", "okapi")
FAST_BUDGETS = {"stt_final_ms": 1500, "llm_first_token_ms": 1500, "tts_first_audio_ms": 1500}


@contextmanager
def _parrot() -> Iterator[str]:
    """A provider that refuses every request by repeating all that it was sent, the key last."""
    app = FastAPI()

    @app.post("/{path:path}")
    async def refuse(request: Request) -> Response:
        heard = f"{(await request.body()).decode('latin-1')[-2_000:]} {dict(request.headers)}"
        if request.url.path.endswith("/chat/completions"):
            # As an error within a stream that has begun: that one's text becomes the exception's.
            error = orjson.dumps({"error": {"message": heard}}).decode()
            return Response(f"data: {error}\n\n", media_type="text/event-stream")
        return Response(heard, status_code=400)

    with serving(app) as root:
        yield root


@pytest.mark.parametrize(("log_format", "providers"), [("text", "good"), ("json", "parrots")])
async def test_a_canary_is_not_seen_again(
    log_format: LogFormat,
    providers: str,
    tmp_path: Path,
    question: Utterance,
    logs_to: LogsTo,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY)
    log, redactor = logs_to("DEBUG", log_format)
    script = Script(
        transcripts=[f"I want a {' '.join(CALLER)} on Friday"],
        replies=[f"We have a {' '.join(ANSWER)}. Would you like it?"],
    )
    with _parrot() as parrot, running(script) as url:
        good = {"kind": "openai", "base_url": url, "model": "simulated", "api_key_env": "CANARY_KEY"}
        chain = [{**good, "base_url": parrot}, good] if providers == "parrots" else [good]
        stages = dict.fromkeys(("stt", "llm", "tts"), chain)
        async with running_node(tmp_path, budgets=FAST_BUDGETS, redactor=redactor, providers=stages) as node:
            # The apologies are not the answer: the caller waits through them, for longer than any budget.
            report = await node.call(question, quiet_ms=2500)
            assert report.answered
            async with asyncio.timeout(5):
                await node.node.idle()
            (record,) = await node.node.registry.calls("bakery")
    said = str(record.transcript)
    assert all(word in said for word in (*CALLER, *ANSWER)), "the canaries were in the call"
    printed = log.getvalue() + "".join(capfd.readouterr())
    assert "call ended" in printed
    stages_failed = ("transcription failed: ", "reply failed: ", "synthesis failed: ")
    failures = [line for line in printed.splitlines() if any(words in line for words in stages_failed)]
    assert {line.partition(" failed: ")[0].rpartition(" ")[2].rpartition('"')[2] for line in failures} == (
        {"transcription", "reply", "synthesis"} if providers == "parrots" else set()
    )
    assert all(record.call_id in line and "bakery" in line for line in failures), (
        "each says whose call it was"
    )
    for canary in (KEY, *CALLER, *ANSWER):
        assert canary not in printed, next(line for line in printed.splitlines() if canary in line)
