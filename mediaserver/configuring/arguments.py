"""The arguments of ``mediaserver config`` and what they run.

Exit statuses: 0 done, or nothing wrong; 1 the answer is no (``validate`` found errors); 2 the command, a file or the node's
configuration is wrong, or the store cannot be used; 3 the change was refused and nothing is changed: another version is
active than was expected, a number is another tenant's, the version's state does not allow it.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from config.loader import load_node_config
from mediaserver.configuring import commands
from mediaserver.configuring.commands import Author, Desk, Outcome, Trial, desk
from mediaserver.errors import MediaServerError
from tenancy import ChangeRefused, NumberTaken, TenancyError, TenantMoved
from tenancy.call_log import MAX_LISTED_CALLS

EXIT_NO: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_STATUSES: Final = "exit status: 0 done; 1 not valid; 2 the command, a file or the store cannot be used; 3 refused, nothing is changed"
MAX_NUMBER: Final = 2**31 - 1


def add_config(commands_of: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``config`` to the commands."""
    parser = commands_of.add_parser("config", help="a tenant's configuration versions", epilog=EXIT_STATUSES)
    what = parser.add_subparsers(required=True, metavar="WHAT")

    validate = _command(what, "validate", _validate, "check a file, or a version that is stored")
    validate.add_argument("file", nargs="?", type=Path, metavar="FILE")
    validate.add_argument("--tenant", metavar="T")
    validate.add_argument(
        "--version", type=_number, metavar="V", help="a draft that is valid is noted as such"
    )
    validate.add_argument(
        "--reachability", action="store_true", help="ask every provider's API root for a sign of life"
    )
    _author(validate)

    history = _command(what, "history", _history, "a tenant's versions and who did what")
    history.add_argument("tenant", metavar="T")
    history.add_argument("--limit", type=_number, default=commands.LISTED, metavar="N")

    diff = _command(what, "diff", _diff, "what differs between two versions")
    diff.add_argument("tenant", metavar="T")
    diff.add_argument("old", type=_number, metavar="V1")
    diff.add_argument("new", type=_number, metavar="V2")

    draft = _command(what, "draft", _draft, "store a file as a version that no call gets yet")
    draft.add_argument("file", type=Path, metavar="FILE")
    _author(draft)

    for name, run, text in (
        ("activate", _activate, "give a version to new calls; a draft is validated first"),
        ("rollback", _rollback, "give new calls the content of an earlier version, as a new one"),
    ):
        change = _command(what, name, run, text)
        _version(change)
        change.add_argument(
            "--expected",
            type=_expected,
            metavar="V",
            help="the version that must be active (0: none), else nothing is changed (default: the one that is now)",
        )
        _author(change)

    reject = _command(what, "reject", _reject, "keep a version from ever becoming active; ends its trial")
    _version(reject)
    _author(reject)

    canary = _command(
        what, "canary", _canary, "give a version to a share of calls until it is shown good or bad"
    )
    _version(canary)
    canary.add_argument(
        "--share", type=_positive, default=5.0, metavar="PERCENT", help="0.01 to 50 (default: 5)"
    )
    canary.add_argument(
        "--hours", type=_positive, default=168.0, help="at most; then it goes back (default: 168)"
    )
    canary.add_argument(
        "--min-calls",
        type=_number,
        default=50,
        metavar="N",
        help="of each version before it is promoted (default: 50)",
    )
    _author(canary)

    tried = _command(what, "try", _try, "replay recorded calls: what a version would say differently")
    _version(tried)
    tried.add_argument(
        "--calls",
        type=_number,
        default=20,
        metavar="N",
        help=f"the newest, at most {MAX_LISTED_CALLS} (default: 20)",
    )
    tried.add_argument(
        "--ask-models",
        action="store_true",
        help="ask the tenant's language model, which costs what its answers cost",
    )


def _command(
    what: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], Awaitable[Outcome]],
    text: str,
) -> argparse.ArgumentParser:
    parser = what.add_parser(name, help=text, description=text, epilog=EXIT_STATUSES)
    parser.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
    parser.add_argument(
        "--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="ERROR", help="default: ERROR"
    )
    parser.set_defaults(run=_answering, what=run)
    return parser


def _version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tenant", metavar="T")
    parser.add_argument("version", type=_number, metavar="V")


def _author(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--author", help="who asks for it (default: your user's name)")
    parser.add_argument("--reason", default="not given", help="why, for the history")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:11]) <= MAX_NUMBER):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number from 1 to {MAX_NUMBER}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number above 0")
    return value


def _expected(text: str) -> int:
    return 0 if text == "0" else _number(text)


async def _answering(options: argparse.Namespace) -> int:
    """Run a command and say what came of it."""
    try:
        outcome: Outcome = await options.what(options)
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
    trial = Trial(options.share, options.hours, options.min_calls)
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
