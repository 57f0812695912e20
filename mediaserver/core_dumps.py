"""No core dumps of processes that hold tenants' keys."""

from __future__ import annotations

from mediaserver.errors import StartupError


def no_core_dumps() -> None:
    """Forbid this process core dumps, for it holds tenants' keys; see `vault.process` for what that costs.

    Debuggers and profilers of the same user (py-spy, gdb, perf) can no longer attach: they need root. Others of the user
    cannot read ``/proc/PID/environ``, ``fd`` and ``maps``, and a crash leaves a traceback and no core file. Raises
    `StartupError`.
    """
    from vault.process import CoreDumpsPossible, forbid_core_dumps  # with the vault comes a client of HTTP

    try:
        forbid_core_dumps()
    except CoreDumpsPossible as error:
        raise StartupError(
            f"core dumps cannot be turned off, and would hold tenants' keys: {error}. "
            "Leave out the vault in the node's configuration, or let the server set RLIMIT_CORE and PR_SET_DUMPABLE."
        ) from error
