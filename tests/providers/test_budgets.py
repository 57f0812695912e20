"""What the node's configuration makes of a stage's terms."""

from __future__ import annotations

from config.node import BudgetsConfig
from mediaserver.pipeline.providers import Budgets
from mediaserver.providers.breaker import Stage


def test_a_hedge_is_due_at_half_the_budget_unless_said_otherwise() -> None:
    budgets = Budgets(**BudgetsConfig(stt_final_ms=2_000, llm_hedge_ms=0, tts_hedge_ms=700).model_dump())
    assert budgets.terms(Stage.STT).hedge_ms == 1_000
    assert budgets.terms(Stage.LLM).hedge_ms is None
    assert budgets.terms(Stage.TTS).hedge_ms == 700
    assert budgets.terms(Stage.STT).first_ms == 2_000


def test_the_configuration_and_the_pipeline_have_the_same_defaults() -> None:
    assert Budgets(**BudgetsConfig().model_dump()) == Budgets()
