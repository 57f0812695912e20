"""The calls of one tenant, as its shard keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import aiosqlite
import orjson

from tenancy.context import CallRecord
from tenancy.database import fetch, store_errors
from tenancy.errors import StoreError

MAX_TRANSCRIPT_BYTES = 1024 * 1024
"""As JSON; of a longer one, and of longer messages, the newest stay."""
MAX_LISTED_CALLS = 100


async def insert_call(shard: aiosqlite.Connection, path: Path, record: CallRecord) -> None:
    """Write a call, unless it is there already. Raises `StoreError`."""
    transcript, dropped = _within(record.transcript, path)
    if dropped:
        note = {"speaker": "system", "text": f"{dropped} earlier lines were too long to keep"}
        transcript = [orjson.dumps(note), *transcript]
    messages, _ = _within(record.messages, path)
    with store_errors(path):
        await shard.execute(
            "INSERT INTO calls (call_id, called, caller, config_version, started_at, ended_at, cause,"
            " transcript, messages) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (call_id, started_at) DO NOTHING",
            (
                _text(record.call_id),
                _text(record.called),
                _text(record.caller),
                record.config_version,
                record.started_at.isoformat(),
                record.ended_at.isoformat(),
                _text(record.cause),
                _array(transcript),
                _array(messages),
            ),
        )


async def newest_calls(shard: aiosqlite.Connection, path: Path, limit: int) -> list[CallRecord]:
    """The newest calls, latest first. Raises `StoreError`."""
    with store_errors(path):
        rows = await fetch(
            shard,
            "SELECT call_id, called, caller, config_version, started_at, ended_at, cause, transcript, messages"
            " FROM calls ORDER BY started_at DESC LIMIT ?",
            max(0, min(limit, MAX_LISTED_CALLS)),
        )
    return [
        CallRecord(
            call_id=row[0],
            called=row[1],
            caller=row[2],
            config_version=row[3],
            started_at=datetime.fromisoformat(row[4]),
            ended_at=datetime.fromisoformat(row[5]),
            cause=row[6],
            transcript=orjson.loads(row[7]),
            messages=orjson.loads(row[8]),
        )
        for row in rows
    ]


def _within(entries: Sequence[Mapping[str, object]], path: Path) -> tuple[list[bytes], int]:
    """The newest entries that fit, each as JSON, and how many did not."""
    kept: list[bytes] = []
    left = MAX_TRANSCRIPT_BYTES
    for entry in reversed(entries):
        try:
            text = orjson.dumps(entry)
        except orjson.JSONEncodeError as error:
            raise StoreError(f"{path}: a call's record is not JSON: {error}") from error
        left -= len(text) + 1
        if left < 0:
            break
        kept.append(text)
    return kept[::-1], len(entries) - len(kept)


def _text(value: str) -> str:
    """What a peer sent as text that SQLite can take: without lone surrogates."""
    return value.encode("utf-8", "replace").decode()


def _array(entries: Sequence[bytes]) -> str:
    return f"[{b','.join(entries).decode()}]"
