"""Where a command works: on a node that runs, through its admin API, or on this machine's own stores."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from mediaserver.errors import MediaServerError

URL_VARIABLE: Final = "MEDIASERVER_ADMIN_URL"
TOKEN_VARIABLE: Final = "MEDIASERVER_ADMIN_TOKEN"
MAX_TOKEN_CHARACTERS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Remote:
    """A node's admin API."""

    url: str
    token: str


def add_remote(parser: argparse.ArgumentParser) -> None:
    """Let a command work on a node that runs. A token is never an argument: those stand in the process list."""
    parser.add_argument(
        "--url",
        help=f"the admin API of a node that runs (or {URL_VARIABLE}); default: the store of --config itself",
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"its API token (or {TOKEN_VARIABLE})"
    )


def add_local_only(parser: argparse.ArgumentParser) -> None:
    """Have a command say, where it is given ``--url``, that it works on this machine alone."""
    for name in ("--url", "--token-file"):
        parser.add_argument(name, action=_Refused, help=argparse.SUPPRESS)


class _Refused(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.error(
            f"this works on the node's own files and stores, on its machine: leave {self.option_strings[0]} out"
        )


def remote_of(url: str | None, token_file: Path | None, environ: Mapping[str, str]) -> Remote | None:
    """Where the command line is told to go; None: to the store itself. Raises `MediaServerError`."""
    where = url or environ.get(URL_VARIABLE, "").strip()
    if not where:
        if token_file is not None:
            raise MediaServerError(f"--token-file goes with --url, or with {URL_VARIABLE}")
        return None
    if not where.startswith(("http://", "https://")):
        raise MediaServerError(f"--url: {where[:200]!r} is no http or https URL")
    if token_file is None:
        token = environ.get(TOKEN_VARIABLE, "").strip()
    else:
        try:
            token = token_file.read_text(encoding="utf-8")[:MAX_TOKEN_CHARACTERS].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise MediaServerError(
                f"{token_file}: {getattr(error, 'strerror', None) or 'not UTF-8'}"
            ) from error
    if not token:
        raise MediaServerError(
            f"a token is needed for {where}: --token-file FILE, or {TOKEN_VARIABLE}; "
            "mediaserver admin token create makes one"
        )
    if not (token.isascii() and token.isprintable()):
        # Not repeated: what stands there may be a secret all the same.
        raise MediaServerError(
            f"what {token_file or TOKEN_VARIABLE} has is no token: a token is one line of ASCII"
        )
    return Remote(where.rstrip("/"), token)


def user_name() -> str:
    """Who runs the command, as the operating system says."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def actor() -> str:
    """The same, as trails and versions name it."""
    return f"cli:{user_name()}"[:100]
