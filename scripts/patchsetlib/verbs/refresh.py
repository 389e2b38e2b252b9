# SPDX-License-Identifier: Apache-2.0
"""``patchset refresh``: a series moved to another commit of upstream's."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import refresh
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.paths import work_dir
from patchsetlib.upstream import clone as upstream

HELP = "move the series of a base to another commit of upstream, and show what changed in it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="for example 3.1.3; see patchset status")
    parser.add_argument("--onto", metavar="REV", help="where to move it, e.g. 3.1.4 or origin/main")
    parser.add_argument(
        "--source",
        metavar="CLONE",
        type=Path,
        help="clone of apache/airflow that has REV (default: a partial clone is made)",
    )
    parser.add_argument(
        "--dir", metavar="DIR", type=Path, help="where the tree goes (default: work/BASE/refresh)"
    )
    parser.add_argument(
        "--as", metavar="NEWBASE", dest="new", help="write the result to airflow-core/NEWBASE"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--continue", dest="go_on", action="store_true", help="go on after a conflict was resolved"
    )
    way.add_argument("--abort", action="store_true", help="give up and remove the tree")


def run(args: argparse.Namespace) -> int:
    base = bases.load(args.base)
    tree = (args.dir or work_dir() / base.name / "refresh").absolute()
    if args.go_on or args.abort:
        if args.onto or args.source or args.new:
            raise UsageError("--continue and --abort take no --onto, --source or --as", "they are known")
        if args.abort:
            refresh.abort(base, tree)
        else:
            refresh.go_on(base, tree)
        return 0
    if not args.onto:
        raise UsageError("no commit to move the series to", "name it: --onto REV")
    if args.new is not None:
        refresh.check_name(args.new)
    clone = args.source or upstream.clone_with(base, args.onto)
    refresh.start(base, clone, args.onto, tree, args.new)
    return 0
