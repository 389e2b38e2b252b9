# SPDX-License-Identifier: Apache-2.0
"""``patchset refresh``: a series moved to another commit or release."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import clone as clones
from patchsetlib.patches import refresh
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.paths import work_dir

HELP = "move the series of a base to another commit or release, and show what changed in it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("base", metavar="BASE", help="one that patchset status lists")
    where = "where to move it: the base of a release, or a commit of the clone, e.g. origin/main"
    add("--onto", metavar="REV", required=True, help=where)
    add("--source", metavar="CLONE", type=Path, help="clone that has REV (default: one of its own)")
    add("--dir", metavar="DIR", type=Path, help="where the tree goes (default: work/BASE/refresh)")
    add("--as", metavar="NEW", dest="new", help="make the base airflow-core/NEW of the result")


def run(args: argparse.Namespace) -> int:
    base = bases.load(args.base)
    tree = (args.dir or work_dir() / base.name / "refresh").absolute()
    if args.new and (not re.fullmatch(r"\w[\w.-]*\w", args.new) or ".." in args.new):
        raise UsageError(
            f"{args.new!r} cannot be the name of a base", "use letters, digits, '.', '_' and '-'"
        )
    if args.source is None and args.onto in bases.all_bases() and bases.load(args.onto).released:
        base.require_release()
        refresh.onto_release(base, bases.load(args.onto), tree)
    else:
        clone = args.source or clones.own(base, args.onto)
        refresh.onto_revision(base, clone, args.onto, tree, args.new)
    return 0
