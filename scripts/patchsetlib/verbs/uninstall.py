# SPDX-License-Identifier: Apache-2.0
"""``uninstall``: bring back an installed Airflow as ``install`` found it."""

from __future__ import annotations

import argparse

from patchsetlib.installs import describe, inplace
from patchsetlib.shell import ui
from patchsetlib.verbs.install import add_installation_arguments, report

HELP = "bring back an installed Airflow as install found it, also after an install that was killed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_installation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    python = args.python or describe.python_on_path()
    actions = inplace.uninstall(python, dry_run=args.dry_run, even_while_running=args.even_while_running)
    report(actions, args.dry_run, "it is not patched")
    if actions and not args.dry_run:
        ui.info("all files are as they were before install")
    return 0
