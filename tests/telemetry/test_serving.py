"""``mediaserver serve`` as an operator runs it: what it prints with ``--log-format json``, and its probes."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path

import httpx2
import orjson
import yaml

from mediaserver.models.process import fit_to_log
from perf.simulators import Script, running
from tests.sim.node import tenant

START_TIMEOUT_S = 60


async def test_every_line_on_standard_error_is_json(tmp_path: Path) -> None:
    with running(Script()) as url:
        (tmp_path / "tenant.yaml").write_text(yaml.safe_dump(tenant(url).model_dump(mode="json")))
        node = {
            "sip": {"host": "127.0.0.1", "port": 0},
            "media": {"host": "127.0.0.1", "first_port": 0, "port_count": 2},
            "http": {"host": "127.0.0.1", "port": 0},
            "data_dir": str(tmp_path / "data"),
            "tenants": ["tenant.yaml"],
            "models": {"url": url},
        }
        (tmp_path / "node.yaml").write_text(yaml.safe_dump(node))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediaserver", "serve", "--config", str(tmp_path / "node.yaml")),
            *("--log-format", "json", "--log-level", "DEBUG"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                said = b""
                while b"and say" not in said:
                    line = await process.stdout.readline()
                    assert line, await process.communicate()
                    said += line
                # The operator's listener is the last that the banner names.
                root = re.findall(r"http://127\.0\.0\.1:\d+", said.decode())[-1]
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
