"""A process that opens keys leaves no core file, whatever its limits were before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vault.process import core_dumps

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")

CRASH = """
import os, resource, signal, sys
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
canary = "canary" * 10_000
if sys.argv[1] == "forbid":
    from vault.process import core_dumps, forbid_core_dumps
    done = forbid_core_dumps()
    assert done == core_dumps(), done
    assert (done.size_limit, done.dumpable) == (0, False), done
    assert forbid_core_dumps() == done
    if os.fork() == 0:
        # A child keeps both.
        os._exit(0 if core_dumps() == done else 3)
    assert os.wait()[1] == 0
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGABRT)
"""


def crash(directory: Path, how: str) -> int:
    """The wait status of a process that aborts."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH, how], cwd=directory, env=environ, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read() == b"ready\n"
    process.stdout.close()
    _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return status


@linux
def test_a_process_that_forbids_them_dumps_no_core(tmp_path: Path) -> None:
    status = crash(tmp_path, "forbid")
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []


@linux
def test_the_same_process_would_dump_one_otherwise(tmp_path: Path) -> None:
    status = crash(tmp_path, "allow")
    assert os.WTERMSIG(status) == signal.SIGABRT
    if not os.WCOREDUMP(status):
        pytest.skip("this machine writes no core files at all, so that the test above says little")
    assert os.WCOREDUMP(status)


@linux
def test_a_program_that_is_started_anew_has_the_limit_and_must_ask_again() -> None:
    code = (
        "import subprocess, sys\n"
        "from vault.process import forbid_core_dumps\n"
        "forbid_core_dumps()\n"
        "print(subprocess.check_output([sys.executable, '-c', "
        "'from vault.process import core_dumps; print(core_dumps().size_limit)']).decode())"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, check=True, timeout=60
    )
    assert said.stdout.split() == [b"0"]


def test_looking_changes_nothing() -> None:
    assert core_dumps() == core_dumps()
