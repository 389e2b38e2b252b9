# SPDX-License-Identifier: Apache-2.0
"""``patchset export``: the commits of a source tree become the patch files of its base."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import export
from patchsetlib.shell import ui
from patchsetlib.shell.paths import display, work_dir

HELP = "write the patch files of a base from the commits of its source tree"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("base", metavar="BASE", help="one that patchset status lists")
    add("--dir", metavar="DIR", type=Path, help="the tree that checkout made (default: work/BASE/source)")
    add("--check", "--dry-run", action="store_true", help="write nothing; fail if anything would change")


def run(args: argparse.Namespace) -> int:
    base = bases.load(args.base)
    tree = (args.dir or work_dir() / base.name / "source").absolute()
    with (
        ui.step(f"exporting {base.name} from {display(tree)}"),
        tempfile.TemporaryDirectory(prefix="patchset-") as scratch,
    ):
        changes = export.export(base, tree, Path(scratch))
    for path, content in changes.items():
        print(f"{display(path)}: {'removed' if content is None else 'changed' if path.exists() else 'new'}")
    if args.check:
        return 1 if changes else 0
    export.write(changes)
    if not changes:
        ui.info("nothing changed")
    return 0
