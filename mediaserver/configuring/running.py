"""Runs a command of ``mediaserver config`` and says what came of it; the statuses are those of `mediaserver.configuring.arguments`."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from config.loader import load_node_config
from mediaserver.configuring import commands
from mediaserver.configuring.commands import Author, Desk, Outcome, Trial, desk
from mediaserver.errors import MediaServerError
from tenancy import ChangeRefused, NumberTaken, TenancyError, TenantMoved

EXIT_NO: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3


async def answering(options: argparse.Namespace) -> int:
    """Run a command and say what came of it."""
    try:
        outcome: Outcome = await COMMANDS[options.what](options)
    except (ChangeRefused, NumberTaken, TenantMoved) as error:
        print(f"mediaserver: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except TenancyError as error:
        print(f"mediaserver: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            where = ".".join(str(part) for part in fault["loc"])
            print(f"mediaserver: {where}: {fault['msg']}", file=sys.stderr)
        return EXIT_USAGE
    for line in outcome.lines:
        print(line)
    return 0 if outcome.sound else EXIT_NO


def _by(options: argparse.Namespace) -> Author:
    if options.author is not None:
        return Author(options.author, options.reason)
    try:
        return Author(getpass.getuser(), options.reason)
    except (KeyError, OSError):
        return Author("unknown", options.reason)


async def _at_desk(options: argparse.Namespace, work: Callable[[Desk], Awaitable[Outcome]]) -> Outcome:
    async with desk(load_node_config(options.config, os.environ), os.environ) as at:
        return await work(at)


async def _validate(options: argparse.Namespace) -> Outcome:
    stored = options.tenant is not None and options.version is not None
    if (options.file is not None) == stored or (options.tenant is None) != (options.version is None):
        raise MediaServerError("name either a FILE, or --tenant and --version")
    if options.file is not None:
        node = load_node_config(options.config, os.environ)
        return await commands.validate_file(options.file, node, os.environ, reachability=options.reachability)
    return await _at_desk(
        options,
        lambda at: commands.validate_version(
            at, options.tenant, options.version, _by(options), reachability=options.reachability
        ),
    )


async def _history(options: argparse.Namespace) -> Outcome:
    return await _at_desk(options, lambda at: commands.history(at, options.tenant, options.limit))


async def _diff(options: argparse.Namespace) -> Outcome:
    return await _at_desk(options, lambda at: commands.diff(at, options.tenant, options.old, options.new))


async def _draft(options: argparse.Namespace) -> Outcome:
    return await _at_desk(options, lambda at: commands.draft(at, options.file, _by(options)))


async def _activate(options: argparse.Namespace) -> Outcome:
    return await _at_desk(
        options,
        lambda at: commands.activate(at, options.tenant, options.version, _by(options), options.expected),
    )


async def _rollback(options: argparse.Namespace) -> Outcome:
    return await _at_desk(
        options,
        lambda at: commands.rollback(at, options.tenant, options.version, _by(options), options.expected),
    )


async def _reject(options: argparse.Namespace) -> Outcome:
    return await _at_desk(
        options, lambda at: commands.reject(at, options.tenant, options.version, _by(options))
    )


async def _canary(options: argparse.Namespace) -> Outcome:
    trial = Trial(options.share, options.hours, options.min_calls, options.max_cost, options.cost_cap)
    return await _at_desk(
        options, lambda at: commands.canary(at, options.tenant, options.version, _by(options), trial)
    )


async def _try(options: argparse.Namespace) -> Outcome:
    return await _at_desk(
        options,
        lambda at: commands.replayed(
            at, options.tenant, options.version, options.calls, ask_models=options.ask_models
        ),
    )


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], Awaitable[Outcome]]]] = MappingProxyType(
    {
        "validate": _validate,
        "history": _history,
        "diff": _diff,
        "draft": _draft,
        "activate": _activate,
        "rollback": _rollback,
        "reject": _reject,
        "canary": _canary,
        "try": _try,
    }
)
