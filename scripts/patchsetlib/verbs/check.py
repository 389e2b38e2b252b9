# SPDX-License-Identifier: Apache-2.0
"""``patchset check``: hygiene of the patch files of every base."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import check
from patchsetlib.patches import clone as clones
from patchsetlib.patches.base import Base
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display

HELP = "find what is wrong with the patch files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", nargs="*", help="only these bases (default: all)")
    parser.add_argument(
        "--source",
        metavar="CLONE",
        type=Path,
        help="also check what needs a full checkout, with this clone of apache/airflow: "
        "upstream's static checks of every commit (ruff, mypy, hooks that need no Docker)",
    )


def run(args: argparse.Namespace) -> int:
    names = args.base or bases.all_bases()
    if not names:
        raise PatchsetError("there is no base here", "restore airflow-core/ with git")
    said: set[check.Finding] = set()
    for name in names:
        base = bases.load(name)
        clone = _clone(base, args.source)
        with ui.step(f"checking {display(base.directory)}"):
            findings = list(check.check(base, clone))
        if args.source:
            from patchsetlib.upstream import staticchecks

            findings += staticchecks.run(base, args.source)
        for finding in findings:
            # What is wrong with common/ is found with each base.
            if finding not in said:
                print(finding)
            said.add(finding)
    ui.info(f"{len(said)} finding{'s' * (len(said) != 1)} in {', '.join(names)}")
    return 1 if said else 0


def _clone(base: Base, given: Path | None) -> Path | None:
    """Return the clone to apply the patches of ``base`` in, and say so if one is needed and there is none."""
    if base.released:
        return None
    if given:
        clones.resolve(given, base)
        return given
    found = clones.existing_own(base)
    if found is None:
        ui.warn(
            f"{base.name}: applying the patches skipped: no clone of {base.repository}; give --source CLONE"
        )
    return found
