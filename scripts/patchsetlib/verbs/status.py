# SPDX-License-Identifier: Apache-2.0
"""``patchset status``: every patch of every base, what it does, and when it can go."""

from __future__ import annotations

import argparse
import json

from rich import box
from rich.console import Console
from rich.table import Table

from patchsetlib.patches import base as bases
from patchsetlib.patches import series
from patchsetlib.patches.series import Patch
from patchsetlib.shell import ui

HELP = "list the patches of every base: what each does, upstream status, exit condition"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", nargs="*", help="only these bases (default: all)")
    parser.add_argument("--json", action="store_true", help="for other programs")


def run(args: argparse.Namespace) -> int:
    rows = []
    for name in args.base or bases.all_bases():
        patches = series.load(bases.load(name))
        if not patches:
            ui.info(f"{name}: no patches")
        rows += [(name, number, patch) for number, patch in enumerate(patches, start=1)]
    if args.json:
        print(json.dumps([_record(*row) for row in rows], indent=2))
        return 0
    console = Console(highlight=False, markup=False)
    table = Table("Base", "#", "Patch", "Files", "Upstream", "Can go when", box=box.SIMPLE_HEAD)
    for name, number, patch in rows:
        leaves = patch.trailer("Exit-condition") or "unknown"
        fields = (name, str(number), patch.subject, str(len(patch.files)), _upstream(patch), leaves)
        table.add_row(*fields)
        if not console.is_terminal:
            print("\t".join(fields))
    if console.is_terminal:
        console.print(table)
    return 0


def _record(name: str, number: int, patch: Patch) -> dict:
    return {
        "base": name,
        "number": number,
        "patch": patch.name,
        "subject": patch.subject,
        "files": patch.files,
        "trailers": patch.trailers,
    }


def _upstream(patch: Patch) -> str:
    applied = patch.trailer("Applied-Upstream")
    return f"applied: {applied}" if applied else f"forwarded: {patch.trailer('Forwarded') or 'unknown'}"
