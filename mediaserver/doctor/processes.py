"""Processes and their ports, as Linux tells of them in ``/proc`` (proc(5)). Nothing is bound and nobody is signalled."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_LISTENING: Final = {"tcp": "0A", "udp": "07"}
"""The state of a socket that waits for anybody, in hexadecimal (include/net/tcp_states.h)."""


class Protocol(StrEnum):
    """What a port is of."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that waits for anybody."""

    protocol: Protocol
    address: str
    port: int
    inode: int


def listeners() -> tuple[Listener, ...]:
    """All of this network namespace."""
    found = []
    for protocol in Protocol:
        for version in ("", "6"):
            try:
                lines = (PROC / "net" / f"{protocol}{version}").read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                fields = line.split()
                if fields[3] == _LISTENING[protocol]:
                    address, _, port = fields[1].partition(":")
                    found.append(Listener(protocol, _address(address), int(port, 16), int(fields[9])))
    return tuple(found)


def _address(text: str) -> str:
    """Of groups of four octets, each in the order of the machine (little-endian)."""
    groups = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(groups)))


def meets(bound: str, wanted: str) -> bool:
    """Whether a socket bound to one address is in the way of one at another; a name may be any address."""
    try:
        first, second = ipaddress.ip_address(bound), ipaddress.ip_address(wanted)
    except ValueError:
        return True
    if first.is_unspecified or second.is_unspecified:
        # An IPv6 socket takes IPv4 as well, unless it says that it does not.
        return first.version in (second.version, 6)
    return first == second


def inodes_of(pid: int) -> frozenset[int]:
    """The sockets of a process; none where it is gone, or another user's."""
    found = set()
    try:
        for each in (PROC / str(pid) / "fd").iterdir():
            try:
                target = str(each.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    except OSError:
        pass
    return frozenset(found)


def holder_of(inode: int) -> str:
    """Who has a socket, as far as this user may know."""
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and inode in inodes_of(int(entry.name)):
            try:
                name = (entry / "comm").read_text().strip()
            except OSError:
                name = "?"
            return f"{name} (process {entry.name})"
    return "a process that this user cannot see"


def open_files(pid: int) -> int | None:
    """Descriptors that a process has open; None where that cannot be known."""
    try:
        return sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
    except OSError:
        return None


def file_limit(pid: int | str) -> int | None:
    """Descriptors that a process may have open; None where that cannot be known or there is no limit."""
    try:
        lines = (PROC / str(pid) / "limits").read_text().splitlines()
    except OSError:
        return None
    soft = next((line.split()[3] for line in lines if line.startswith("Max open files")), "")
    return int(soft) if soft.isdecimal() else None


def started_ms(pid: int) -> int | None:
    """When a process began, in milliseconds since the epoch; None where there is none."""
    try:
        # The name of the program may hold anything; what follows it does not.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        booted = next(
            int(line.split()[1])
            for line in (PROC / "stat").read_text().splitlines()
            if line.startswith("btime")
        )
    except (OSError, StopIteration):
        return None
    if fields[0] == "Z":
        return None
    return booted * 1_000 + int(fields[19]) * 1_000 // os.sysconf("SC_CLK_TCK")
