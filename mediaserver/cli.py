"""The command line: ``mediaserver serve``, ``call``, ``config``, ``doctor``.

`store_commands` has the stores' commands, `keys_command` the vault's, `admin_command` the admin API's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import uvloop

from config.errors import ConfigError
from config.loader import load_node_config
from mediaserver import admin_command, store_commands
from mediaserver.configuring.arguments import add_config
from mediaserver.errors import MediaServerError
from mediaserver.remote import add_local_only, add_remote
from mediaserver.telemetry.logs import configure_logs

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("text", "json")
CODEC_NAMES = {"pcmu": "PCMU", "pcma": "PCMA", "g722": "G722", "opus": "opus"}
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = parser().parse_args(arguments)
    configure_logs(options.log_level or "INFO")
    try:
        return uvloop.run(run(options))
    except KeyboardInterrupt:
        return 130


async def run(options: argparse.Namespace) -> int:
    """Run the command of arguments that `parser` has read; returns the exit status."""
    try:
        status: int = await options.run(options)
    except (MediaServerError, ConfigError) as error:
        print(f"mediaserver: {error}", file=sys.stderr)
        return EXIT_USAGE
    return status


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    program = argparse.ArgumentParser(prog="mediaserver", description="A multi-tenant AI receptionist.")
    commands = program.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="answer calls")
    serve.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
    serve.add_argument("--log-level", choices=LOG_LEVELS, help="default: the configuration's log_level")
    serve.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="call workers (default: one per core; 0: none, all in one process)",
    )
    serve.add_argument("--log-format", choices=LOG_FORMATS, help="default: the configuration's log_format")
    serve.set_defaults(run=_serve)

    again = commands.add_parser("reload", help="replace the call workers of a running node; calls stay")
    again.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
    again.add_argument("--log-level", choices=LOG_LEVELS, default="WARNING", help="default: WARNING")
    again.set_defaults(run=_reload)

    store_commands.add_commands(commands)

    call = commands.add_parser("call", help="place a test call and measure it on the wire")
    call.add_argument("uri", metavar="SIP-URI", nargs="?", help="for example sip:+15550100@127.0.0.1")
    call.add_argument(
        "--webrtc", metavar="URL", help="call as a browser does, for example http://127.0.0.1:8080"
    )
    call.add_argument(
        "--number", help="whom to call with --webrtc (default: the first that the server lists)"
    )
    call.add_argument(
        "--say", action="append", default=[], metavar="TEXT", help="a question to speak; repeatable"
    )
    call.add_argument("--wav", action="append", default=[], type=Path, metavar="FILE", help="speech to play")
    call.add_argument("--record", type=Path, metavar="FILE", help="keep the call as a stereo WAV")
    call.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    call.add_argument("--transport", choices=("udp", "tcp"), default="udp", help="for SIP (default: udp)")
    call.add_argument(
        "--codec", choices=sorted(CODEC_NAMES), help="the one to offer (default: pcmu, then pcma)"
    )
    call.add_argument("--srtp", action="store_true", help="offer encrypted media alone (SDES)")
    call.add_argument("--start-server", action="store_true", help="start a demo server if none answers")
    call.add_argument("--log-level", choices=LOG_LEVELS, default="WARNING", help="default: WARNING")
    call.set_defaults(run=_call)
    add_config(commands)
    _add_keys(commands)
    admin_command.add_admin(commands)
    _add_doctor(commands)
    return program


def _add_keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
    common.add_argument("--log-level", choices=LOG_LEVELS, default="WARNING", help="default: WARNING")
    keys = commands.add_parser("keys", help="tenants' own provider keys, while the node runs or not")
    keys.set_defaults(run=_keys)
    which = keys.add_subparsers(required=True, metavar="COMMAND", dest="keys_command")

    put = which.add_parser("put", parents=[common], help="keep a key, read from standard input or a prompt")
    revoke = which.add_parser("revoke", parents=[common], help="delete a key; its name and version stay")
    for each in (put, revoke):
        each.add_argument("tenant", metavar="TENANT")
        each.add_argument("name", metavar="NAME", help="as the tenant's configuration has it: key: NAME")
    put.add_argument("key", nargs="*", help=argparse.SUPPRESS)
    listing = which.add_parser("list", parents=[common], help="a tenant's keys, never the keys themselves")
    listing.add_argument("tenant", metavar="TENANT", nargs="?", help="default: which tenants have keys")
    rotate = which.add_parser("rotate", parents=[common], help="wrap or seal anew, while calls go on")
    what = rotate.add_mutually_exclusive_group(required=True)
    what.add_argument("--kek", action="store_true", help="all data keys by the present key-encryption key")
    what.add_argument("--data-key", metavar="TENANT", help="a tenant's keys by a new data key")
    audit = which.add_parser("audit", parents=[common], help="who did what to which key")
    audit.add_argument(
        "--limit", type=int, default=50, metavar="N", help="the newest N entries (default: 50)"
    )
    audit.add_argument("--verify", action="store_true", help="check the whole trail against its seal instead")
    for each in (put, revoke, listing, rotate):
        add_remote(each)
    add_local_only(audit)


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="what is wrong with a node, running or not, and whether it is time for Postgres",
        epilog="Exit status: 0 all is well, 1 there are warnings, 2 there are errors. Nothing is changed.",
    )
    parser.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="WARNING", help="default: WARNING")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument(
        "--all-tenants", action="store_true", help="read every tenant's file through, not some of them"
    )
    parser.set_defaults(run=_doctor)


async def _doctor(options: argparse.Namespace) -> int:
    from mediaserver.doctor.command import doctor

    return await doctor(options)


async def _keys(options: argparse.Namespace) -> int:
    from mediaserver.keys_command import keys

    return await keys(options)


async def _serve(options: argparse.Namespace) -> int:
    from mediaserver.serving import serve

    environ = dict(os.environ)
    if options.workers is not None:
        environ["MEDIASERVER_WORKERS"] = str(options.workers)
    config = load_node_config(options.config, environ)
    redactor = configure_logs(options.log_level or config.log_level, options.log_format or config.log_format)
    return await serve(config, redactor)


async def _reload(options: argparse.Namespace) -> int:
    from mediaserver.serving import reload

    reload(load_node_config(options.config, os.environ))
    return EXIT_OK


async def _call(options: argparse.Namespace) -> int:
    from mediaserver.softphone.command import CallRequest, place_call

    report = await place_call(
        CallRequest(
            uri=options.uri,
            webrtc=options.webrtc,
            number=options.number,
            say=tuple(options.say),
            wav=tuple(options.wav),
            record=options.record,
            transport=options.transport,
            start_server=options.start_server,
            codec=CODEC_NAMES[options.codec] if options.codec else None,
            srtp=options.srtp,
        ),
        (lambda _: None) if options.json else (lambda line: print(line, flush=True)),
    )
    if options.json:
        print(orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        print(report.summary())
    return EXIT_OK if report.success else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
