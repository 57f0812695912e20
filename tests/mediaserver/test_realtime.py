"""What is said where the kernel does not hold real-time threads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediaserver.realtime import starvation_warning, unthrottled


@pytest.mark.parametrize(
    ("text", "expected"), [("-1\n", True), ("950000\n", False), ("0\n", False), ("", False)]
)
def test_the_kernels_word(tmp_path: Path, text: str, expected: bool) -> None:
    path = tmp_path / "sched_rt_runtime_us"
    path.write_text(text)
    assert unthrottled(path) is expected


def test_a_kernel_without_the_setting_says_nothing(tmp_path: Path) -> None:
    assert unthrottled(tmp_path / "absent") is False


def test_the_warning_names_the_cores_that_are_left() -> None:
    assert "1 of 4 cores have none" in starvation_warning(3, 4)
    assert "each of the 2 cores may have one" in starvation_warning(2, 2)
