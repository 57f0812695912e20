"""A folder of tenants' files that is watched: what changes there is in use at the next call (GitOps).

Polled, not told by the kernel: inotify misses what happens on network file systems and behind the symbolic links by which
Kubernetes swaps a whole folder. A look is one ``stat`` per file, in a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from loguru import logger

from config.errors import ConfigError
from config.loader import load_tenant_config, load_tenants
from config.node import NodeConfig, TenantFolderConfig
from mediaserver.configuring.dry_run import dry_run_on
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import TENANT_FILES
from tenancy import TenancyError
from tenancy.folder import FolderWatch, Signature
from tenancy.lifecycle import Followed, Lifecycle
from tenancy.store import Store

MAX_SHOWN: Final = 20
"""Refused files in /status."""
MAX_SHOWN_CHARACTERS: Final = 500


class _Refused(Exception):  # noqa: N818
    """A file is not in use, and why."""

    def __init__(self, text: str, *, again: bool = False) -> None:
        super().__init__(text)
        self.again = again


class TenantFolder:
    """Follows the files of one folder."""

    def __init__(
        self,
        config: TenantFolderConfig,
        lifecycle: Lifecycle,
        meters: Meters,
        *,
        reserved: Collection[str] = (),
        on_change: Callable[[], Awaitable[None]] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``reserved``: tenants whose files the node's configuration names. ``on_change``: after a look that changed some."""
        self._config = config
        self._lifecycle = lifecycle
        self._meters = meters
        self._reserved = frozenset(reserved)
        self._on_change = on_change
        self._pause = pause
        self._watch = FolderWatch()
        self._unreadable: str | None = None

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._pause(self._config.poll_ms / 1000)
            await self.look()

    async def look(self, *, at_once: bool = False) -> int:
        """Look once; returns how many tenants have another version now. ``at_once``: do not wait for files to rest."""
        try:
            found = await asyncio.to_thread(_signatures, self._config.path)
        except OSError as error:
            self._say_unreadable(f"{self._config.path}: {error.strerror or error}")
            return 0
        self._unreadable = None
        changed = 0
        for name in self._watch.looked(found, at_once=at_once):
            changed += await self._follow(name)
        if changed and self._on_change is not None:
            await self._on_change()
        return changed

    async def _follow(self, name: str) -> bool:
        """Take one file over; whether its tenant has another version now."""
        try:
            followed = await self._taken_over(name)
        except _Refused as refused:
            if self._watch.refused(name, str(refused), again=refused.again):
                self._meters.inc(TENANT_FILES, "refused")
                logger.bind(event="config_refused").error("not in use, what ran goes on: {}", refused)
            return False
        self._meters.inc(TENANT_FILES, "applied" if followed.changed else "unchanged")
        return followed.changed

    async def _taken_over(self, name: str) -> Followed:
        path = self._config.path / name
        try:
            config = await asyncio.to_thread(load_tenant_config, path)
        except ConfigError as error:
            raise _Refused(str(error)) from error
        if config.tenant_id in self._reserved:
            raise _Refused(
                f"{path}: {config.tenant_id!r} has a file under 'tenants' in the node's configuration"
            )
        other = self._watch.other_file_of(config.tenant_id, name)
        if other is not None:
            raise _Refused(f"{path}: {config.tenant_id!r} is already used in {other}", again=True)
        try:
            if not await self._lifecycle.is_followed(config):
                report = await self._lifecycle.check(config)
                if report.errors:
                    raise _Refused("\n".join(f"{path}: {each}" for each in report.errors))
                for each in report.warnings:
                    logger.bind(tenant=config.tenant_id, event="config_warning").warning("{}: {}", path, each)
            followed = await self._lifecycle.follow(config, author="tenant folder", reason=name)
        except TenancyError as error:
            # Only what the file itself says needs another file: the rest may be otherwise at the next look.
            raise _Refused(f"{path}: {error}", again=True) from error
        self._watch.taken(name, config.tenant_id)
        if followed.changed:
            logger.bind(tenant=config.tenant_id, event="config_change").info(
                "{}: {} version {} is active", path, config.tenant_id, followed.version
            )
        return followed

    def _say_unreadable(self, text: str) -> None:
        if self._unreadable != text:
            logger.error("the folder of tenants' files cannot be read, what ran goes on: {}", text)
        self._unreadable = text

    def status(self) -> dict[str, object]:
        """For /status: what is not in use, and why."""
        refusals = self._watch.refusals
        return {
            "path": str(self._config.path),
            "error": self._unreadable,
            "applied": self._watch.applied,
            "left_out": self._watch.left_out,
            "refused": len(refusals),
            "refusals": {
                name: refusals[name].text[:MAX_SHOWN_CHARACTERS] for name in sorted(refusals)[:MAX_SHOWN]
            },
        }


def _signatures(folder: Path) -> Mapping[str, Signature]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.endswith((".yaml", ".yml")):
                continue
            try:
                seen = entry.stat()
            except OSError:
                continue  # It went meanwhile, or leads nowhere: the next look knows.
            found[entry.name] = Signature(seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return found


async def open_folder(
    config: NodeConfig, store: Store, meters: Meters, on_change: Callable[[], Awaitable[None]]
) -> TenantFolder | None:
    """The folder that the node's configuration names, if it does. Raises `ConfigError`."""
    if config.tenant_folder is None:
        return None
    named = await asyncio.to_thread(load_tenants, config.tenants)
    return TenantFolder(
        config.tenant_folder,
        Lifecycle(store, dry_run=dry_run_on(config, os.environ)),
        meters,
        reserved=[each.tenant_id for each in named],
        on_change=on_change,
    )
