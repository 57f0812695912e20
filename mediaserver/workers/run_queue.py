"""How long a process has waited for a processor, which is no sign that it is stuck."""

from __future__ import annotations

import os
from typing import Final

NS_PER_MS: Final = 1_000_000


class RunQueue:
    """What Linux counts of a process's main thread in ``/proc/<pid>/schedstat``: nanoseconds run, nanoseconds runnable but not run.

    A process that is stopped, asleep or in a loop waits for no processor. Where the kernel does not count it, nobody has waited.
    """

    def __init__(self, pid: int) -> None:
        try:
            self._file = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1
        self._seen_ns = 0
        self._seen_ns = self._waited_ns()

    def waited_ms(self) -> int:
        """Since it was asked last. A wait that is not over yet is counted when it is."""
        waited_ms = (self._waited_ns() - self._seen_ns) // NS_PER_MS
        self._seen_ns += waited_ms * NS_PER_MS
        return waited_ms

    def close(self) -> None:
        """It waits for nothing from here on."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _waited_ns(self) -> int:
        if self._file < 0:
            return self._seen_ns
        try:
            return int(os.pread(self._file, 128, 0).split()[1])
        except (OSError, ValueError, IndexError):  # It has ended.
            self.close()
            return self._seen_ns
