"""Runs a command of ``mediaserver config`` and says what came of it; the statuses are those of `mediaserver.configuring.arguments`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from admin.client import AdminClient, ApiProblem
from admin.errors import AdminError
from config.loader import load_node_config
from mediaserver.configuring import commands, over_api
from mediaserver.configuring.commands import Author, Desk, Outcome, desk
from mediaserver.configuring.desk import api
from mediaserver.configuring.over_api import Trial
from mediaserver.errors import MediaServerError
from mediaserver.remote import remote_of, user_name
from tenancy import ChangeRefused, NumberTaken, TenancyError, TenantMoved
from vault import VaultError

EXIT_NO: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
REFUSALS: Final = (403, 409, 412, 422)
UNUSABLE: Final = "the version cannot be used"
"""What the API says of a version that a check refuses (`admin.problems`)."""


async def answering(options: argparse.Namespace) -> int:
    """Run a command and say what came of it."""
    return await told(COMMANDS[options.what](options))


async def told(work: Awaitable[Outcome]) -> int:
    """Say what came of something; returns the exit status. Raises `MediaServerError`, `ConfigError`."""
    try:
        outcome = await work
    except (ChangeRefused, NumberTaken, TenantMoved) as error:
        print(f"mediaserver: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except ApiProblem as problem:
        # Each line by itself: a version may have several faults.
        for line in str(problem).splitlines():
            print(f"mediaserver: {line}", file=sys.stderr)
        return EXIT_REFUSED if problem.answered in REFUSALS and not _is_usage(problem) else EXIT_USAGE
    except (AdminError, VaultError) as error:
        print(f"mediaserver: {error}", file=sys.stderr)
        return EXIT_USAGE
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


def _is_usage(problem: ApiProblem) -> bool:
    """Whether the request itself was wrong, and not what it was to change."""
    return problem.answered == 422 and problem.said == "invalid" and problem.args[0] != UNUSABLE


def _by(options: argparse.Namespace) -> Author:
    # What only looks at something takes neither.
    name, reason = getattr(options, "author", None), getattr(options, "reason", "not given")
    return Author(user_name() if name is None else name, reason)


async def _at_desk(options: argparse.Namespace, work: Callable[[Desk], Awaitable[Outcome]]) -> Outcome:
    async with desk(load_node_config(options.config, os.environ), os.environ) as at:
        return await work(at)


async def _validate(options: argparse.Namespace) -> Outcome:
    stored = options.tenant is not None and options.version is not None
    if (options.file is not None) == stored or (options.tenant is None) != (options.version is None):
        raise MediaServerError("name either a FILE, or --tenant and --version")
    if options.file is not None:
        if options.url is not None:
            raise MediaServerError(
                "a FILE is checked here, on no node: leave --url out, or draft it and check the version"
            )
        node = load_node_config(options.config, os.environ)
        return await commands.validate_file(options.file, node, os.environ, reachability=options.reachability)
    return await through_api(
        options,
        lambda at, by: over_api.validate(
            at, options.tenant, options.version, by, reachability=options.reachability
        ),
    )


async def through_api(
    options: argparse.Namespace, work: Callable[[AdminClient, Author], Awaitable[Outcome]]
) -> Outcome:
    """Do something through the admin API: of the node that ``--url`` names, or of this process over the node's store."""
    author = _by(options)
    remote = remote_of(options.url, options.token_file, os.environ)
    if remote is not None and getattr(options, "author", None) is not None:
        raise MediaServerError(f"--author: on {remote.url} the token says who asks")
    node = load_node_config(options.config, os.environ) if remote is None else None
    async with api(node, remote, author.name, os.environ) as client:
        return await work(client, author)


async def _history(options: argparse.Namespace) -> Outcome:
    return await through_api(options, lambda at, _: over_api.history(at, options.tenant, options.limit))


async def _diff(options: argparse.Namespace) -> Outcome:
    return await through_api(
        options, lambda at, _: over_api.diff(at, options.tenant, options.old, options.new)
    )


async def _draft(options: argparse.Namespace) -> Outcome:
    return await through_api(options, lambda at, by: over_api.draft(at, options.file, by))


async def _activate(options: argparse.Namespace) -> Outcome:
    return await through_api(
        options,
        lambda at, by: over_api.activate(at, options.tenant, options.version, by, options.expected),
    )


async def _rollback(options: argparse.Namespace) -> Outcome:
    return await through_api(
        options,
        lambda at, by: over_api.rollback(at, options.tenant, options.version, by, options.expected),
    )


async def _reject(options: argparse.Namespace) -> Outcome:
    return await through_api(options, lambda at, by: over_api.reject(at, options.tenant, options.version, by))


async def _canary(options: argparse.Namespace) -> Outcome:
    trial = Trial(options.share, options.hours, options.min_calls, options.max_cost, options.cost_cap)
    return await through_api(
        options, lambda at, by: over_api.canary(at, options.tenant, options.version, by, trial)
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
