# SPDX-License-Identifier: Apache-2.0
"""``patchset check``: hygiene of the patch files of every base."""

from __future__ import annotations

import argparse

from patchsetlib import base as bases
from patchsetlib import check, ui
from patchsetlib.errors import PatchsetError
from patchsetlib.paths import display

HELP = "find what is wrong with the patch files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", nargs="*", help="only these bases (default: all)")


def run(args: argparse.Namespace) -> int:
    names = args.base or bases.all_bases()
    if not names:
        raise PatchsetError("there is no base here", "restore airflow-core/ with git")
    count = 0
    for name in names:
        base = bases.load(name)
        with ui.step(f"checking {display(base.directory)}"):
            findings = list(check.check(base))
        for finding in findings:
            print(finding)
        count += len(findings)
    ui.info(f"{count} finding{'s' * (count != 1)} in {', '.join(names)}")
    return 1 if count else 0
