"""Softphones in a process of their own: ``python -m perf.phones PORT NUMBER CALLS TURNS WAV...``.

Prints the calls' reports as one JSON line. Each call asks as many questions as there are turns, one after the other.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import cycle, islice
from pathlib import Path

import uvloop

from mediaserver.softphone.listening import Ear
from mediaserver.softphone.phone import Phone, PhoneOptions
from mediaserver.softphone.report import CallReport
from mediaserver.softphone.speech import from_wav
from mediaserver.vad_weights import silero_weights
from sipbridge import SipUri

QUIET_MS = 500
NOBODY = "http://127.0.0.1:9/v1"
"""The ear's model, which is not asked: nothing is transcribed here."""


async def _calls(port: int, number: str, calls: int, turns: int, paths: list[Path]) -> list[CallReport]:
    utterances = tuple([await from_wav(path) for path in paths])
    options = PhoneOptions(
        target=SipUri("sip", number, "127.0.0.1", port),
        utterances=tuple(islice(cycle(utterances), turns)),
        local_host="127.0.0.1",
        vad_model=silero_weights(),
        quiet_ms=QUIET_MS,
        transcribe=False,
    )
    ear = Ear(NOBODY)
    try:
        return await asyncio.gather(*(Phone(options, ear, lambda _: None).call() for _ in range(calls)))
    finally:
        await ear.close()


def main() -> None:
    """Place the calls and print what came of them."""
    port, number, calls, turns, *paths = sys.argv[1:]
    reports = uvloop.run(_calls(int(port), number, int(calls), int(turns), [Path(path) for path in paths]))
    print(json.dumps([report.as_dict() | {"latencies_ms": report.latencies_ms} for report in reports]))


if __name__ == "__main__":
    main()
