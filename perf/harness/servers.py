"""What is measured: `mediaserver serve` on simulated providers, the stock pipeline, or whatever answers at an address."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from perf.examples import ROOT
from perf.harness.latency import Scenario
from perf.harness.processes import Cores, python, start, stopped_after

NUMBER = "+15550199"
GREETING = "Hello, this is the bench bakery. How can I help you?"
START_S = 120.0
FEWEST_SLOTS = 1_000


@dataclass(frozen=True, slots=True)
class Server:
    """Somebody who answers calls."""

    name: str
    target: tuple[str, ...]
    """The generator's arguments that name it."""
    pid: int | None = None
    """The process whose family is measured; None where it is not on this machine."""
    end_of_turn_ms: float | None = None
    """The silence that it waits for, where that is a fixed one."""
    metrics_url: str | None = None


@dataclass(frozen=True, slots=True)
class SimulatedProviders:
    """Where they are."""

    url: str
    """Root of the OpenAI-compatible API."""
    live_url: str
    """Root of the live transcription."""
    pid: int


@contextlib.contextmanager
def simulated_providers(
    scenario: Scenario, speech: Path, directory: Path, cores: Cores
) -> Iterator[SimulatedProviders]:
    """The providers, in a process of their own."""
    script = directory / "scenario.json"
    script.write_bytes(orjson.dumps(scenario.document()))
    process = start(
        python("perf.harness.providers", "--speech", str(speech), "--script", str(script)), cores.others
    )
    with stopped_after(process):
        port, live_url = _line_with(process, "").split()
        yield SimulatedProviders(f"http://127.0.0.1:{port}/v1", live_url, process.pid)


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """What the providers say of themselves."""

    counts: dict[str, int]
    """Requests, and faults that they were answered with."""
    late_ms: list[float]
    """How late answers were since the last time that this was asked for."""


def provider_stats(url: str) -> ProviderStats:
    """Ask the simulated providers."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=10) as response:
        return ProviderStats(**orjson.loads(response.read()))


@contextlib.contextmanager
def our_server(
    providers: SimulatedProviders,
    directory: Path,
    cores: Cores,
    *,
    workers: int | None,
    turn_taking: dict[str, int],
    live_stt: bool,
) -> Iterator[Server]:
    """`mediaserver serve` with one tenant, everything else at its defaults."""
    sip_port, http_port = _free_port(), _free_port()
    tenant = _tenant(providers, turn_taking, live_stt=live_stt)
    (directory / "tenant.yaml").write_text(yaml.safe_dump(tenant))
    node = {
        "sip": {"host": "127.0.0.1", "port": sip_port},
        "media": {"host": "127.0.0.1", "first_port": 0, "port_count": 16, "threads": len(cores.server)},
        "http": {"port": http_port},
        "data_dir": str(directory / "data"),
        "capacity": {"slots": FEWEST_SLOTS},
        "tenants": ["tenant.yaml"],
        "models": {"url": providers.url},
    }
    config = directory / "node.yaml"
    config.write_text(yaml.safe_dump(node))
    command = python("mediaserver", "serve", "--config", str(config))
    if workers is not None:
        command += ["--workers", str(workers)]
    with (directory / "server.log").open("wb") as log:
        process = start(command, cores.server, log=log)
        with stopped_after(process):
            try:
                _line_with(process, "ready after")
            except RuntimeError as error:
                raise RuntimeError(f"{error}: {(directory / 'server.log').read_text()[-2000:]}") from error
            target = ("--server", f"127.0.0.1:{sip_port}", "--number", NUMBER)
            metrics_url = f"http://127.0.0.1:{http_port + 1}/metrics"
            yield Server("mediaserver", target, process.pid, _fixed_wait_ms(turn_taking), metrics_url)


@contextlib.contextmanager
def stock_server(providers_url: str, directory: Path, cores: Cores) -> Iterator[Server]:
    """The stock pipeline (`perf.harness.stock`) in a process of its own."""
    with (directory / "stock.log").open("wb") as log:
        process = start(python("perf.harness.stock", "--providers", providers_url), cores.server, log=log)
        with stopped_after(process):
            port = int(_line_with(process, "ready on ").split()[-1])
            target = ("--server", f"127.0.0.1:{port}", "--number", "stock")
            yield Server("stock Pipecat", target, process.pid)


def worker_option() -> bool:
    """Whether this server has worker processes to choose the number of."""
    run = subprocess.run(
        python("mediaserver", "serve", "--help"), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return "--workers" in run.stdout


def _fixed_wait_ms(turn_taking: dict[str, int]) -> float | None:
    value = turn_taking.get("end_of_turn_ms")
    return None if value is None else float(value)


def _tenant(
    providers: SimulatedProviders, turn_taking: dict[str, int], *, live_stt: bool
) -> dict[str, object]:
    provider = {"kind": "openai", "base_url": providers.url, "model": "simulated"}
    live = {"kind": "deepgram", "base_url": providers.live_url, "model": "simulated"}
    tenant: dict[str, object] = {
        "tenant_id": "bakery",
        "business_name": "Bench Bakery",
        "business_kind": "bakery",
        "numbers": [NUMBER],
        "time_zone": "Europe/Berlin",
        "greeting": GREETING,
        "address": "1 Mill Lane",
        "hours": {"monday": [{"opens": "08:00", "closes": "18:00"}]},
        "human": {"name": "Rosa"},
        "voice": {"name": "alloy"},
        "providers": {
            "stt": [live, provider] if live_stt else [provider],
            "llm": [provider],
            "tts": [provider],
        },
        "max_concurrent_calls": FEWEST_SLOTS,
    }
    if turn_taking:
        tenant["turn_taking"] = turn_taking
    return tenant


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _line_with(process: subprocess.Popen[str], text: str) -> str:
    """The first line of its output with the text in it; a process that does not say it in time is ended."""
    assert process.stdout is not None
    too_late = threading.Timer(START_S, process.kill)
    too_late.start()
    try:
        for line in process.stdout:
            if text in line:
                return line.strip()
    finally:
        too_late.cancel()
    raise RuntimeError(f"{process.args!r} does not start")
