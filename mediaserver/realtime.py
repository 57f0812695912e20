"""What real-time scheduling of the media threads may cost the rest of the machine."""

from __future__ import annotations

from pathlib import Path

RUNTIME = Path("/proc/sys/kernel/sched_rt_runtime_us")
"""How much of each `sched_rt_period_us` real-time threads may take of a core; -1: all of it (sched(7))."""


def unthrottled(path: Path = RUNTIME) -> bool:
    """Whether the kernel lets real-time threads keep a core for ever. False where it does not say."""
    try:
        return int(path.read_text()) < 0
    except (OSError, ValueError):
        return False


def starvation_warning(threads: int, cores: int) -> str:
    """What to say where real-time threads run unthrottled."""
    spared = cores - threads
    left = f"{spared} of {cores} cores have none" if spared > 0 else f"each of the {cores} cores may have one"
    return (
        f"kernel.sched_rt_runtime_us is -1: nothing stops a real-time thread that never rests. The node runs {threads} "
        f"(media.threads); {left}. Set sched_rt_runtime_us to 950000, the kernel's default, to leave the rest of the "
        "machine a twentieth of every core, or media.realtime: off."
    )
