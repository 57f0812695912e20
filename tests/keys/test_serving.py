"""``mediaserver serve`` with a vault: its processes leave no core files, and it does not start without its key."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path

import httpx2
import pytest

from perf.simulators import Script, running
from tests.sim.command import START_TIMEOUT_S, operator_root, serve
from tests.sim.vault import keep, vault_config

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


async def serve_with_vault(directory: Path, url: str) -> asyncio.subprocess.Process:
    return await serve(
        directory, url, workers={"count": 1}, vault=vault_config(directory).model_dump(mode="json")
    )


def core_size_limits(pid: int) -> list[str]:
    """Soft and hard, as the kernel tells them of a process."""
    (line,) = re.findall(r"^Max core file size +(\S+) +(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.M)
    return list(line)


@linux
async def test_edge_and_workers_leave_no_core_files_where_there_is_a_vault(tmp_path: Path) -> None:
    await keep(tmp_path, "bakery", own="a-key-of-the-bakery")
    with running(Script()) as url:
        process = await serve_with_vault(tmp_path, url)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                root = await operator_root(process)
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
        process = await serve_with_vault(tmp_path, url)
        (tmp_path / "kek").rename(tmp_path / "elsewhere")
        async with asyncio.timeout(START_TIMEOUT_S):
            _, errors = await process.communicate()
    assert process.returncode == 2
    last = errors.decode().splitlines()[-1]
    assert last.startswith("mediaserver: the vault of tenants' keys cannot be used: ")
    assert re.search(
        r"kek: No such file or directory; what the vault keeps is wrapped by test:[0-9a-f]{8}", last
    )
