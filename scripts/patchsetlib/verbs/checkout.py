# SPDX-License-Identifier: Apache-2.0
"""``patchset checkout``: a source tree with the series as commits."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import clone, series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell import ui
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.paths import display, work_dir
from patchsetlib.shell.staging import staged

HELP = "make a source tree of a base, with its patches as commits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("base", metavar="BASE", help="one that patchset status lists")
    origin = "make a worktree of this clone of apache/airflow (default: the sdists, or a clone of its own)"
    add("--source", metavar="CLONE", type=Path, help=origin)
    add("--dir", metavar="DIR", type=Path, help="where the tree goes (default: work/BASE/source)")
    add("--before", metavar="PATCH", help="apply only the patches before this one")


def run(args: argparse.Namespace) -> int:
    base = bases.load(args.base)
    patches = _selected(base, args.before)
    target = (args.dir or work_dir() / base.name / "source").absolute()
    origin = args.source
    if origin is None and not base.released:
        origin = clone.own(base)
        clone.forget_removed_tree(base, origin)
    where = f"the clone {display(origin)}" if origin else "the sdists"
    with ui.step(f"checking out {base.name} from {where} with {len(patches)} patches"):
        if origin:
            clone.checkout(base, patches, origin, target)
        else:
            with staged(target) as building:
                source.make_sdist_tree(base, building)
                source.apply_series(base, building, patches)
    ui.info(
        f"branch {source.branch_name(base)}, base tagged {source.tag_name(base)}; edit, commit, then: "
        f"scripts/patchset export {base.name}"
        + (f" --dir {shlex.quote(display(target))}" if args.dir else "")
    )
    print(target)
    return 0


def _selected(base: Base, before: str | None) -> list[Patch]:
    patches = series.load(base)
    names = [patch.name for patch in patches]
    if before is not None and before not in names:
        raise UsageError(
            f"no patch {before!r} in {display(base.series_file)}", f"patches: {', '.join(names) or 'none'}"
        )
    return patches[: names.index(before)] if before else patches
