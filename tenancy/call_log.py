"""A call as the databases keep it: bounded, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC

import orjson

from tenancy.context import CallRecord
from tenancy.errors import StoreError
from tenancy.store import CallRow

MAX_TRANSCRIPT_BYTES = 1024 * 1024
"""As JSON; of a longer one, and of longer messages, the newest stay."""
MAX_PROVIDERS_BYTES = 64 * 1024
"""As JSON, of what is said of a call's providers; the first stay, for a service's chain begins with whom it wanted."""
MAX_LISTED_CALLS = 100


def row_of(record: CallRecord) -> CallRow:
    """What is kept of a call. Raises `StoreError` where it is no JSON."""
    transcript, dropped = _within(record.transcript)
    if dropped:
        note = {"speaker": "system", "text": f"{dropped} earlier lines were too long to keep"}
        transcript = [orjson.dumps(note), *transcript]
    messages, _ = _within(record.messages)
    providers, left_out = _first_within(record.providers, MAX_PROVIDERS_BYTES)
    if left_out:
        providers.append(orjson.dumps({"outcome": "not_kept", "times": left_out}))
    return CallRow(
        call_id=record.call_id,
        called=record.called,
        caller=record.caller,
        config_version=record.config_version,
        started_at=record.started_at.astimezone(UTC),
        ended_at=record.ended_at.astimezone(UTC),
        cause=record.cause,
        transcript=_array(transcript),
        messages=_array(messages),
        providers=_array(providers),
    )


def record_of(row: CallRow) -> CallRecord:
    """The call that was kept."""
    return CallRecord(
        call_id=row.call_id,
        called=row.called,
        caller=row.caller,
        config_version=row.config_version,
        started_at=row.started_at,
        ended_at=row.ended_at,
        cause=row.cause,
        transcript=orjson.loads(row.transcript),
        messages=orjson.loads(row.messages),
        providers=orjson.loads(row.providers),
    )


def _within(entries: Sequence[Mapping[str, object]]) -> tuple[list[bytes], int]:
    """The newest entries that fit, each as JSON, and how many did not."""
    kept, dropped = _first_within(entries[::-1], MAX_TRANSCRIPT_BYTES)
    return kept[::-1], dropped


def _first_within(entries: Sequence[Mapping[str, object]], left: int) -> tuple[list[bytes], int]:
    """The first entries that fit, each as JSON, and how many did not."""
    kept: list[bytes] = []
    for entry in entries:
        try:
            text = orjson.dumps(entry)
        except orjson.JSONEncodeError as error:
            raise StoreError(f"a call's record is not JSON: {error}") from error
        left -= len(text) + 1
        if left < 0:
            break
        kept.append(text)
    return kept, len(entries) - len(kept)


def _array(entries: Sequence[bytes]) -> str:
    return f"[{b','.join(entries).decode()}]"
