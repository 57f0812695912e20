"""``mediaserver serve`` as a process of a test."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import yaml

from tests.sim.node import tenant

START_TIMEOUT_S = 60


async def serve(directory: Path, url: str, *options: str, **more: object) -> asyncio.subprocess.Process:
    """Start it with one tenant on the simulators at ``url``; ``more`` goes into the node's configuration."""
    (directory / "tenant.yaml").write_text(yaml.safe_dump(tenant(url).model_dump(mode="json")))
    node = {
        "sip": {"host": "127.0.0.1", "port": 0},
        "media": {"host": "127.0.0.1", "first_port": 0, "port_count": 2},
        "http": {"host": "127.0.0.1", "port": 0},
        "data_dir": str(directory / "data"),
        "tenants": ["tenant.yaml"],
        "models": {"url": url},
        **more,
    }
    (directory / "node.yaml").write_text(yaml.safe_dump(node))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediaserver", "serve", "--config", str(directory / "node.yaml")),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def operator_root(process: asyncio.subprocess.Process) -> str:
    """Wait for the banner; the root of the operator's listener, which is the last that it names."""
    assert process.stdout is not None
    said = b""
    while b"and say" not in said:
        line = await process.stdout.readline()
        assert line, await process.communicate()
        said += line
    return str(re.findall(r"http://127\.0\.0\.1:\d+", said.decode())[-1])
