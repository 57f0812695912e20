"""``mediaserver serve`` with a vault: its processes leave no core files, and it does not start without its key."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path

import httpx2
import pytest
import yaml

from perf.simulators import Script, running
from tests.sim.node import tenant
from tests.sim.vault import keep, vault_config

START_TIMEOUT_S = 60
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


async def serve(directory: Path, url: str) -> asyncio.subprocess.Process:
    (directory / "tenant.yaml").write_text(yaml.safe_dump(tenant(url).model_dump(mode="json")))
    node = {
        "sip": {"host": "127.0.0.1", "port": 0},
        "media": {"host": "127.0.0.1", "first_port": 0, "port_count": 2},
        "http": {"host": "127.0.0.1", "port": 0},
        "data_dir": str(directory / "data"),
        "tenants": ["tenant.yaml"],
        "models": {"url": url},
        "workers": {"count": 1},
        "vault": vault_config(directory).model_dump(mode="json"),
    }
    (directory / "node.yaml").write_text(yaml.safe_dump(node))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediaserver", "serve", "--config", str(directory / "node.yaml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def core_size_limits(pid: int) -> list[str]:
    """Soft and hard, as the kernel tells them of a process."""
    (line,) = re.findall(r"^Max core file size +(\S+) +(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.M)
    return list(line)


@linux
async def test_edge_and_workers_leave_no_core_files_where_there_is_a_vault(tmp_path: Path) -> None:
    await keep(tmp_path, "bakery", own="a-key-of-the-bakery")
    with running(Script()) as url:
        process = await serve(tmp_path, url)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                said = b""
                while b"and say" not in said:
                    line = await process.stdout.readline()
                    assert line, await process.communicate()
                    said += line
                root = re.findall(r"http://127\.0\.0\.1:\d+", said.decode())[-1]
                async with httpx2.AsyncClient(base_url=root) as client:
                    (worker,) = (await client.get("/status")).json()["workers"]
                assert core_size_limits(process.pid) == ["0", "0"]
                assert core_size_limits(worker["pid"]) == ["0", "0"]
                process.send_signal(signal.SIGTERM)
                await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0


async def test_a_node_whose_key_is_gone_says_so_in_a_line(tmp_path: Path) -> None:
    await keep(tmp_path, "bakery", own="a-key-of-the-bakery")
    with running(Script()) as url:
        process = await serve(tmp_path, url)
        (tmp_path / "kek").rename(tmp_path / "elsewhere")
        async with asyncio.timeout(START_TIMEOUT_S):
            _, errors = await process.communicate()
    assert process.returncode == 2
    last = errors.decode().splitlines()[-1]
    assert last.startswith("mediaserver: the vault of tenants' keys cannot be used: ")
    assert re.search(
        r"kek: No such file or directory; what the vault keeps is wrapped by test:[0-9a-f]{8}", last
    )
