"""Every reason for which a call ends has a word of its own in the metrics."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mediaserver.telemetry.outcomes import OUTCOMES, outcome_of
from mediaserver.telemetry.schema import CALLS
from sipbridge import EndCause

ROOT = Path(__file__).parents[2] / "mediaserver"
ENDING = frozenset({"over", "ended", "_on_over", "media_ended", "call_later", "_end"})
"""What is called with the reason of an end."""


def _reasons() -> list[str]:
    """The literal reasons in the source, as far as they go: of a formatted one its beginning."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in ENDING or not node.args:
                continue
            match node.args[-1]:
                case ast.Constant(value=str(text)):
                    found.add(text)
                case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
                    found.add(text)
    return sorted(found)


def test_there_are_reasons_to_find() -> None:
    assert {"pipeline failed", "maximum call length", "the browser never connected"} <= set(_reasons())


@pytest.mark.parametrize(
    "why", [*_reasons(), "never connected", "connectivity lost", "closed by the browser"]
)
def test_each_has_its_outcome(why: str) -> None:
    assert outcome_of(why) != "other", why


@pytest.mark.parametrize(
    "cause", [cause for cause in EndCause if cause not in (EndCause.REJECTED, EndCause.FAILED)]
)
def test_so_has_each_end_of_a_dialog(cause: EndCause) -> None:
    assert outcome_of(f"{cause}: whatever") != "other"
    assert outcome_of(str(cause)) != "other"


def test_outcomes_are_the_labels() -> None:
    (label,) = CALLS.labels
    assert set(OUTCOMES.values()) == set(label.values)
    assert outcome_of("no media from the caller for 30000 ms") == "media_lost"
    assert outcome_of("no media") == "no_media"
    assert outcome_of("struck by lightning") == "other"
