# SPDX-License-Identifier: Apache-2.0
"""``install``: patch an installed Airflow where it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from patchsetlib.installs import describe, inplace
from patchsetlib.patches import base as bases
from patchsetlib.shell import ui
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.paths import display

HELP = "patch an installed Airflow in place; uninstall brings back every byte"


def add_installation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which Airflow to change, and how carefully."""
    parser.add_argument(
        "--python",
        metavar="PATH",
        type=Path,
        help="the Python that Airflow runs with (default: that of airflow on PATH, else python3)",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing; fail if it could not be done")
    parser.add_argument(
        "--even-while-running",
        action="store_true",
        help="although processes run from it, which may then load old and new modules together",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", metavar="BASE", help="for example 3.3.2, or auto: the base of what is installed"
    )
    add_installation_arguments(parser)
    parser.epilog = "The files that the patches change must be stock. Either all are changed, or none."


def run(args: argparse.Namespace) -> int:
    base = None if args.base == "auto" else bases.load(args.base)
    if base is not None and base.is_provider:
        raise UsageError(
            f"{base.name} is a provider", f"install its wheel: scripts/patchset wheel {base.name}"
        )
    python = args.python or describe.python_on_path()
    actions = inplace.install(python, base, dry_run=args.dry_run, even_while_running=args.even_while_running)
    report(actions, args.dry_run, "it is patched already")
    if actions and not args.dry_run:
        ui.info(f"patched; to go back: scripts/patchset uninstall --python {display(python)}")
    return 0


def report(actions: list[inplace.Action], dry_run: bool, nothing: str) -> None:
    """Print what was done to which file."""
    for action, path in actions:
        print(f"{action} {path}")
    if not actions:
        ui.info(f"nothing to do: {nothing}")
    elif dry_run:
        ui.info("nothing was changed (--dry-run)")
