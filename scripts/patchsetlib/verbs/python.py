# SPDX-License-Identifier: Apache-2.0
"""``python``: build an environment and say where its interpreter is."""

from __future__ import annotations

import argparse

from patchsetlib.installs import environment
from patchsetlib.patches import base

HELP = "build the environment of a base, patched or stock, and print the path of its interpreter"


def add_environment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose an environment."""
    parser.add_argument("base", metavar="BASE", help="one that patchset status lists")
    parser.add_argument("--stock", action="store_true", help="as published, without the patches")
    parser.add_argument(
        "--python",
        metavar="X.Y",
        help="version or path of a Python; default: $PATCHSET_PYTHON, else the one that runs this tool",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_environment_arguments(parser)


def run(args: argparse.Namespace) -> int:
    print(environment.python(base.load(args.base), not args.stock, args.python))
    return 0
