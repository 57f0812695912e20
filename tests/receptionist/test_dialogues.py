"""The golden dialogues, replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.receptionist.traces import FOLDER, Trace

TRACES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_golden_dialogue(path: Path) -> None:
    trace = Trace.parse(path.read_text())
    assert trace.replay() == trace.lines


def test_both_kinds_of_tenant_have_several_dialogues() -> None:
    tenants = [Trace.parse(path.read_text()).config.business_kind for path in TRACES]
    assert tenants.count("dental clinic") >= 5
    assert len(tenants) - tenants.count("dental clinic") >= 5
