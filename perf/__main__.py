"""``python -m perf run …``: what a server does under load. ``python -m perf.bench`` has the parts."""

from __future__ import annotations

import argparse
import sys

from perf.harness import command


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    command.add(parser.add_subparsers(required=True, metavar="COMMAND"))
    options = parser.parse_args()
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
