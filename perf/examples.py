"""The Rust benchmarks, which are cargo examples that print a table."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE_RUN_S = 600.0


def example_command(package: str, example: str, *arguments: str) -> list[str]:
    """What builds the example, if need be, and runs it."""
    cargo = ["cargo", "run", "--quiet", "--release", "--locked", "-p", package, "--example", example]
    return [*cargo, "--", *arguments]


def run_example(package: str, example: str, *arguments: str) -> str:
    """What the example prints."""
    run = subprocess.run(
        example_command(package, example, *arguments),
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=EXAMPLE_RUN_S,
    )
    return run.stdout
