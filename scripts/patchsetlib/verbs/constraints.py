# SPDX-License-Identifier: Apache-2.0
"""``constraints``: pin the dependencies of a base anew."""

from __future__ import annotations

import argparse

from patchsetlib.installs import constraints
from patchsetlib.patches import base

HELP = "regenerate the pinned dependencies of a base, as of its release"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="e.g. 3.1.3")


def run(args: argparse.Namespace) -> int:
    for path in constraints.write(base.load(args.base)):
        print(path)
    return 0
