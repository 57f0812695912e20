"""Whether a node runs on the data folder, one alone, and what it says of itself to its operator."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

import orjson

from config.node import NodeConfig
from mediaserver.doctor.checks import Check, error, ok, warning
from mediaserver.doctor.processes import started_ms
from mediaserver.serving import PID_FILE
from tenancy.figures import NodeRow
from tenancy.node_repository import SEEN_WITHIN_MS

ANSWER_S: Final = 3.0
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
STARTS_WITHIN_MS: Final = 2_000
"""``/proc`` tells a process's start to the second."""


def alive_here(nodes: Sequence[NodeRow], host: str) -> tuple[NodeRow, ...]:
    """Those of the known nodes whose process runs on this machine; a number that another process has by now is none."""
    found = []
    for each in nodes:
        began = started_ms(each.pid) if each.host == host else None
        if began is not None and began <= each.started_ms + STARTS_WITHIN_MS:
            found.append(each)
    return tuple(found)


def node_process(config: NodeConfig, nodes: Sequence[NodeRow], host: str) -> int | None:
    """The process of the node that has this data folder, if one runs here: the newest where there are several."""
    here = alive_here(nodes, host)
    if here:
        return here[-1].pid
    # A node on Postgres, or one that has only begun.
    pid = _noted_pid(config)
    return pid if pid is not None and started_ms(pid) is not None else None


def _noted_pid(config: NodeConfig) -> int | None:
    try:
        return int((config.data_dir / PID_FILE).read_text())
    except (OSError, ValueError):
        return None


def several(config: NodeConfig, nodes: Sequence[NodeRow], now_ms: int) -> Check:
    """Whether more than one node has the store."""
    name, host = "nodes", socket.gethostname()
    here = alive_here(nodes, host)
    elsewhere = [each for each in nodes if each.host != host and each.seen_ms > now_ms - SEEN_WITHIN_MS]
    figures = {"here": [each.pid for each in here], "elsewhere": sorted({each.host for each in elsewhere})}
    if config.store.kind == "postgres":
        return ok(name, f"{len(here)} here, {len(elsewhere)} on other machines", **figures)
    if len(here) > 1 or (here and elsewhere):
        who = [f"process {each.pid}" for each in here] + [f"{each.host}:{each.pid}" for each in elsewhere]
        todo = "stop all but one, or give each its data_dir; for several nodes, move to Postgres"
        return error(name, f"{len(who)} have {config.data_dir} open: {', '.join(who)}", todo, **figures)
    if elsewhere:
        who = [f"{each.host}:{each.pid}" for each in elsewhere]
        said = f"{config.data_dir} was open on another machine within three minutes: {', '.join(who)}"
        return warning(name, said, "start no node here before that one has ended", **figures)
    who_has = f"process {here[0].pid}" if here else "none"
    return ok(name, f"{who_has} has {config.data_dir} open", **figures)


def node(config: NodeConfig, pid: int | None) -> list[Check]:
    """What the node says of itself."""
    name = "node"
    if pid is None:
        noted = _noted_pid(config)
        gone = "" if noted is None else f"; {PID_FILE} names process {noted}, which ended without a word"
        return [warning(name, f"none runs on {config.data_dir}{gone}", "start it: mediaserver serve")]
    host, port = config.http.operator.host, config.http.operator_port
    if not port:
        return [
            ok(
                name,
                f"process {pid} runs; its operator's port was chosen when it started: not asked",
                pid=pid,
            )
        ]
    root = f"http://{_reachable(host)}:{port}"
    try:
        return _asked(pid, root)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        todo = f"its event loop may hang: look at its log, then restart it (process {pid})"
        return [error(name, f"process {pid} runs, and {root} does not answer: {fault}", todo, pid=pid)]


def _asked(pid: int, root: str) -> list[Check]:
    alive, ready, status = _get(f"{root}/healthz"), _get(f"{root}/readyz"), _get(f"{root}/status")
    figures = {"pid": pid, "health": alive["checks"], "readiness": ready["checks"]}
    figures |= {key: status[key] for key in ("uptime_s", "active_calls", "slots", "admitted", "refused")}
    said = (
        f"process {pid}, up for {status['uptime_s']} s, {status['active_calls']} of {status['slots']} calls,"
        f" {status['admitted']} admitted, {status['refused']} refused"
    )
    lost = sum(dict(status["workers_lost"]).values())
    said += f", {lost} workers lost" if lost else ""
    failing = [key for probe in (alive, ready) for key, holds in probe["checks"].items() if not holds]
    if any(not holds for holds in alive["checks"].values()):
        todo = "restart it: the process cannot go on as it is"
        return [error("node", f"{said}; failing: {', '.join(failing)}", todo, **figures)]
    if failing:
        todo = "new calls are refused: it drains, starts, or has lost its workers or models; look at its log"
        return [warning("node", f"{said}; not ready: {', '.join(failing)}", todo, **figures)]
    if status["active_calls"] >= status["slots"]:
        todo = "callers are told that all lines are busy: a second node is due"
        return [warning("node", f"{said}: full", todo, **figures)]
    return [ok("node", said, **figures)]


def _get(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            body = answer.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as fault:
        # The probes answer 503 with what does not hold.
        body = fault.read(MAX_ANSWER_BYTES)
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise TypeError("its answer is no document")
    return found


def _reachable(host: str) -> str:
    match host:
        case "0.0.0.0":
            return "127.0.0.1"
        case "::":
            return "[::1]"
        case _ if ":" in host:
            return f"[{host}]"
        case _:
            return host
