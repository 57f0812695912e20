"""Counters: bounded labels, frozen snapshots, a histogram that loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.errors import FailureCause
from mediaserver.providers.breaker import Stage
from mediaserver.providers.stats import FIRST_MS_BOUNDS, MAX_PROVIDERS, OTHERS, ProviderStats


@given(st.lists(st.integers(0, 100_000), max_size=50))
def test_every_latency_is_in_the_bucket_that_ends_at_or_after_it(latencies_ms: list[int]) -> None:
    stats = ProviderStats()
    for latency_ms in latencies_ms:
        stats.first_piece(Stage.STT, "p", latency_ms, hedge=False)
    stats.asked(Stage.STT, "p", hedge=False)
    measured = stats.snapshot().providers[Stage.STT, "p"].first_ms
    assert (measured.count, measured.sum_ms) == (len(latencies_ms), sum(latencies_ms))
    lower = -1
    for bound, count in zip(FIRST_MS_BOUNDS, measured.counts, strict=False):
        assert count == sum(lower < latency_ms <= bound for latency_ms in latencies_ms)
        lower = bound
    assert measured.counts[-1] == sum(latency_ms > FIRST_MS_BOUNDS[-1] for latency_ms in latencies_ms)


def test_names_are_bounded_per_stage() -> None:
    stats = ProviderStats()
    for number in range(MAX_PROVIDERS + 10):
        stats.asked(Stage.LLM, f"tenant:{number}", hedge=False)
    stats.asked(Stage.TTS, "tenant:tts", hedge=True)
    providers = stats.snapshot().providers
    assert len(providers) == MAX_PROVIDERS + 2
    assert providers[Stage.LLM, OTHERS].requests == 10
    assert providers[Stage.TTS, "tenant:tts"].hedges_started == 1


def test_a_snapshot_stays_as_it_was() -> None:
    stats = ProviderStats()
    stats.failed(Stage.TTS, "p", FailureCause.RESET)
    before = stats.snapshot()
    stats.failed(Stage.TTS, "p", FailureCause.RESET)
    assert before.providers[Stage.TTS, "p"].failures == {FailureCause.RESET: 1}
    with pytest.raises(TypeError):
        before.providers[Stage.TTS, "q"] = before.providers[Stage.TTS, "p"]  # type: ignore[index]
