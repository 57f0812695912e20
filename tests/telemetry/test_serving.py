"""``mediaserver serve`` as an operator runs it: what it prints with ``--log-format json``, and its probes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx2
import orjson

from mediaserver.models.process import fit_to_log
from perf.simulators import Script, running
from tests.sim.command import START_TIMEOUT_S, operator_root, serve


async def test_every_line_on_standard_error_is_json(tmp_path: Path) -> None:
    with running(Script()) as url:
        process = await serve(tmp_path, url, "--log-format", "json", "--log-level", "DEBUG")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                root = await operator_root(process)
                async with httpx2.AsyncClient(base_url=root) as client:
                    for path, text in (
                        ("/healthz", '"ok"'),
                        ("/readyz", '"ready"'),
                        ("/metrics", "calls_active 0.0"),
                    ):
                        response = await client.get(path)
                        assert response.status_code == 200, response.text
                        assert text in response.text
                process.send_signal(signal.SIGTERM)
                _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0
    lines = [orjson.loads(line) for line in errors.splitlines()]
    assert lines
    for line in lines:
        assert {"time", "level", "message", "logger"} <= line.keys()
        assert line["time"].endswith("Z")


def test_of_the_model_process_only_places_and_types_are_logged() -> None:
    said = (
        b'Traceback (most recent call last):\n  File "/x/server.py", line 9, in transcribe\n    return model(audio)\n'
        b"ValueError: I want a quokka on Friday\nan odd line with a quokka\n"
    )
    logged = fit_to_log(said)
    assert logged == 'File "/x/server.py", line 9, in transcribe | ValueError | 3 more lines'
    assert fit_to_log(b"") == ""
    assert "quokka" not in fit_to_log(b"I want a quokkaError")
