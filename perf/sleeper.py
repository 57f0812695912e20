"""The machine's own unevenness: ``python -m perf.sleeper SECONDS`` wakes up every 20 ms and does nothing else.

Prints how far the distances of its wake-ups were from 20 ms, as one JSON list. What it suffers, any thread of ordinary
priority suffers on this machine in this minute, so it stands beside the playout's spacing as its peer.
"""

from __future__ import annotations

import json
import sys
import time

from perf.audio import PACKET_MS
from perf.results import spacing_errors_ms


def main() -> None:
    """Sleep and wake up."""
    woken_us = []
    due_s = time.monotonic()
    end_s = due_s + float(sys.argv[1])
    while due_s < end_s:
        due_s += PACKET_MS / 1000
        time.sleep(max(0.0, due_s - time.monotonic()))
        woken_us.append(time.monotonic() * 1e6)
    print(json.dumps(spacing_errors_ms(woken_us, range(len(woken_us)), PACKET_MS)))


if __name__ == "__main__":
    main()
