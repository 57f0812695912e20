"""``mediaserver serve``: a node, and the words that tell a person how to reach it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mediaserver.core_dumps import no_core_dumps
from mediaserver.errors import MediaServerError
from mediaserver.garbage import GarbageCollection
from mediaserver.models.process import ModelProcess
from mediaserver.workers.nursery_client import Nursery

if TYPE_CHECKING:
    from config.node import HttpConfig, NodeConfig
    from mediaserver.node import Node
    from mediaserver.telemetry.redaction import Redactor

TRY_SAYING = (
    "What are your opening hours?",
    "Where are you?",
    "Can I leave a message?",
)


async def serve(config: NodeConfig, redactor: Redactor | None = None) -> int:
    """Run a node until it is told to stop; ``redactor``: the log's, which learns of the node's keys."""
    began = time.monotonic()
    if config.vault is not None:
        no_core_dumps()
    models = None
    if config.models.url is None:
        # The models load in their process while this one imports Pipecat: each takes about two seconds.
        models = ModelProcess(start_timeout_s=config.models.start_timeout_s)
        models.begin()
    nursery = Nursery() if config.workers.count != 0 else None
    if nursery is not None:
        nursery.begin()
    module = await asyncio.to_thread(importlib.import_module, "mediaserver.node")
    node: Node = module.Node(config, models, nursery, redactor)
    loop = asyncio.get_running_loop()
    starting = asyncio.ensure_future(node.start())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, starting.cancel)
    try:
        await starting
    except asyncio.CancelledError:
        return 130
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, node.request_stop)
    loop.add_signal_handler(signal.SIGHUP, node.request_reload)
    print(banner(node, time.monotonic() - began, config.sip.host, config.http), flush=True)
    garbage = GarbageCollection(node.telemetry.meters, "edge", lambda: node.calls)
    garbage.start()
    with pid_file(Path(config.data_dir)):
        await node.run()
    garbage.stop()
    return 1 if node.broken else 0


PID_FILE = "mediaserver.pid"


@contextlib.contextmanager
def pid_file(data_dir: Path) -> Iterator[None]:
    """While a node runs, its process id stands in its data folder."""
    path = data_dir / PID_FILE
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def reload(config: NodeConfig) -> None:
    """Ask the node of this configuration to replace its call workers. Raises `MediaServerError`."""
    path = Path(config.data_dir) / PID_FILE
    try:
        os.kill(int(path.read_text()), signal.SIGHUP)
    except FileNotFoundError:
        raise MediaServerError(f"no node runs with the data folder {config.data_dir}") from None
    except (ValueError, ProcessLookupError):
        raise MediaServerError(
            f"{path} names no process that runs: the node ended without removing it"
        ) from None


def banner(node: Node, took_s: float, sip_host: str, http: HttpConfig) -> str:
    """What is printed when calls are answered."""
    from sipbridge.uri import bracketed  # Loaded by now; at the top it would hold up the models' start.

    loopback = "[::1]" if ":" in sip_host else "127.0.0.1"
    lines = [
        f"ready after {took_s:.1f} s",
        f"  SIP   udp+tcp {bracketed(sip_host)}:{node.sip_port}",
        f"  HTTP  http://{bracketed(http.host)}:{node.http_port}/ (a softphone in the browser)",
        f"        http://{bracketed(http.operator.host)}:{node.operator_port}/status and /metrics (for the operator)",
    ]
    if node.admin is not None:
        lines.append(f"        http://{bracketed(node.admin.host)}:{node.admin.port}/v1 (administration)")
    lines += ["", "dial"]
    lines += [
        f"  sip:{number}@{loopback}:{node.sip_port}   {tenant.config.business_name}"
        for tenant in node.tenants
        for number in tenant.config.numbers
    ]
    lines += ["", "and say, for example"]
    lines += [f'  "{words}"' for words in TRY_SAYING]
    lines += ["", "or, in another terminal: make call", ""]
    return "\n".join(lines)
