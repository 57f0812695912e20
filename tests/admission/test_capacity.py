"""The capacity number: it follows the cores and what a call costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from admission import CallKind, slots_for
from admission.capacity import BUDGET_SHARE


@given(cores=st.integers(1, 256), kind=st.sampled_from(CallKind))
def test_the_slots_fit_the_budget_and_one_more_would_not(cores: int, kind: CallKind) -> None:
    slots = slots_for(cores, kind)
    budget_ms = cores * 1000 * BUDGET_SHARE
    assert slots >= 1
    assert slots * kind.value <= budget_ms < (slots + 1) * kind.value


def test_embedded_models_cost_most_of_the_capacity() -> None:
    assert slots_for(2, CallKind.EMBEDDED_MODELS) * 5 < slots_for(2, CallKind.REMOTE_MODELS)
