"""The arguments of ``mediaserver config`` and what they run.

Exit statuses: 0 done, or nothing wrong; 1 the answer is no (``validate`` found errors); 2 the command, a file or the node's
configuration is wrong, or the store cannot be used; 3 the change was refused and nothing is changed: another version is
active than was expected, a number is another tenant's, the version's state does not allow it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from mediaserver.remote import add_local_only, add_remote

EXIT_STATUSES: Final = "exit status: 0 done; 1 not valid; 2 the command, a file or the store cannot be used; 3 refused, nothing is changed"
MAX_NUMBER: Final = 2**31 - 1
LISTED: Final = 50
MAX_LISTED_CALLS: Final = 100
"""`tenancy.call_log.MAX_LISTED_CALLS`, without the databases' libraries."""


def add_config(commands_of: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``config`` to the commands."""
    parser = commands_of.add_parser("config", help="a tenant's configuration versions", epilog=EXIT_STATUSES)
    what = parser.add_subparsers(required=True, metavar="WHAT")

    validate = _command(what, "validate", "check a file, or a version that is stored")
    validate.add_argument("file", nargs="?", type=Path, metavar="FILE")
    validate.add_argument("--tenant", metavar="T")
    validate.add_argument(
        "--version", type=_number, metavar="V", help="a draft that is valid is noted as such"
    )
    validate.add_argument(
        "--reachability", action="store_true", help="ask every provider's API root for a sign of life"
    )
    _author(validate)

    history = _command(what, "history", "a tenant's versions and who did what")
    history.add_argument("tenant", metavar="T")
    history.add_argument("--limit", type=_number, default=LISTED, metavar="N")

    diff = _command(what, "diff", "what differs between two versions")
    diff.add_argument("tenant", metavar="T")
    diff.add_argument("old", type=_number, metavar="V1")
    diff.add_argument("new", type=_number, metavar="V2")

    draft = _command(what, "draft", "store a file as a version that no call gets yet")
    draft.add_argument("file", type=Path, metavar="FILE")
    _author(draft)

    for name, text in (
        ("activate", "give a version to new calls; a draft is validated first"),
        ("rollback", "give new calls the content of an earlier version, as a new one"),
    ):
        change = _command(what, name, text)
        _version(change)
        change.add_argument(
            "--expected",
            type=_expected,
            metavar="V",
            help="the version that must be active (0: none), else nothing is changed (default: the one that is now)",
        )
        _author(change)

    reject = _command(what, "reject", "keep a version from ever becoming active; ends its trial")
    _version(reject)
    _author(reject)

    canary = _command(what, "canary", "give a version to a share of calls until it is shown good or bad")
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
    canary.add_argument(
        "--max-cost",
        type=_positive,
        metavar="PERCENT",
        help="how much the cost per call may rise (default: 25 where the configuration states every provider's price, else "
        "it is not compared)",
    )
    canary.add_argument(
        "--cost-cap",
        type=_positive,
        default=1.0,
        metavar="USD",
        help="a call's cost counts up to this (default: 1); a lower cap shows a rise with fewer calls",
    )
    _author(canary)

    tried = _command(what, "try", "replay recorded calls: what a version would say differently")
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
    text: str,
) -> argparse.ArgumentParser:
    parser = what.add_parser(name, help=text, description=text, epilog=EXIT_STATUSES)
    parser.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
    parser.add_argument(
        "--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="ERROR", help="default: ERROR"
    )
    parser.set_defaults(run=_run, what=name)
    if name == "try":
        add_local_only(parser)
    else:
        add_remote(parser)
    return parser


def _version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tenant", metavar="T")
    parser.add_argument("version", type=_number, metavar="V")


def _author(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--author", help="who asks for it (default: your user's name; with --url it is the token's)"
    )
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


async def _run(options: argparse.Namespace) -> int:
    # The other commands start without what these need.
    from mediaserver.configuring.running import answering

    return await answering(options)
