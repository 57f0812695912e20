"""Many callers' packets from one process: ``python -m perf.line_sender FRAMES_FILE COUNT SECONDS``.

The file holds the payloads of 20 ms that every caller sends around and around, each from another place. The addresses
that they send from are printed as one JSON line; sending begins when standard input names the port for
each of them.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

from perf.audio import FRAME, PACKET_US, packet

STAGGER = 7
"""Callers are that many packets apart in the conversation."""
GROUPS = 4
"""Callers are spread over the 20 ms as calls are: they do not all begin at the same moment."""


def main() -> None:
    """Send until the time is over."""
    path, count_text, seconds_text = sys.argv[1:4]
    codes = Path(path).read_bytes()
    payloads = [codes[at : at + FRAME] for at in range(0, len(codes), FRAME)]
    count, seconds = int(count_text), float(seconds_text)
    sockets = []
    for _ in range(count):
        line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        line.bind(("127.0.0.1", 0))
        sockets.append(line)
    print(json.dumps([line.getsockname()[1] for line in sockets]), flush=True)
    targets = [int(port) for port in sys.stdin.readline().split()]
    for line, port in zip(sockets, targets, strict=True):
        line.connect(("127.0.0.1", port))
    began_us = time.monotonic_ns() // 1000
    for tick in range(int(seconds * 1_000_000 / PACKET_US) * GROUPS):
        due_us = began_us + tick * PACKET_US // GROUPS
        time.sleep(max(0.0, due_us / 1e6 - time.monotonic()))
        number = tick // GROUPS
        for index in range(tick % GROUPS, count, GROUPS):
            payload = payloads[(number + index * STAGGER) % len(payloads)]
            sockets[index].send(packet(number, number * FRAME, index, payload))


if __name__ == "__main__":
    main()
