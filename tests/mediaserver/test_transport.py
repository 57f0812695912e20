"""Speech without a pause is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.pipeline.transport import MAX_UTTERANCE_MS, UtteranceLimit


@given(st.integers(0, 10_000_000), st.lists(st.integers(1, 5_000), max_size=200))
def test_no_piece_is_much_longer_than_the_limit(start_ms: int, steps_ms: list[int]) -> None:
    limit = UtteranceLimit()
    limit.started(start_ms)
    now_ms = begun_ms = start_ms
    for step_ms in steps_ms:
        now_ms += step_ms
        if limit.exceeded(now_ms):
            assert now_ms - begun_ms >= MAX_UTTERANCE_MS
            begun_ms = now_ms
        assert now_ms - begun_ms < MAX_UTTERANCE_MS
