"""Each worker that was lost is explained once, whichever side told of it first."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.workers.ends import MAX_REMEMBERED, Ends, cause_of
from mediaserver.workers.worker_settings import EXIT_NO_MEMORY


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (EXIT_NO_MEMORY, "memory"),
        (-signal.SIGKILL, "killed"),
        (-signal.SIGSEGV, "crashed"),
        (1, "crashed"),
        (0, "crashed"),
    ],
)
def test_what_a_status_stands_for(status: int, cause: str) -> None:
    assert cause_of(status) == cause


@given(st.permutations([(side, pid) for side in ("socket", "nursery") for pid in range(8)]))
def test_the_order_does_not_matter(told: list[tuple[str, int]]) -> None:
    ends, causes = Ends(), []
    for side, pid in told:
        causes.append(ends.lost(pid) if side == "socket" else ends.ended(pid, -signal.SIGKILL))
    assert [cause for cause in causes if cause is not None] == ["killed"] * 8


def test_what_is_half_known_is_bounded() -> None:
    ends = Ends()
    for pid in range(2 * MAX_REMEMBERED):
        assert ends.lost(pid) is None
        assert ends.ended(10_000 + pid, 0) is None
    assert ends.ended(0, 0) is None
    assert ends.ended(2 * MAX_REMEMBERED - 1, 0) == "crashed"
    assert ends.lost(10_000) is None
