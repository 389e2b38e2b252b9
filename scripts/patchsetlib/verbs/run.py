# SPDX-License-Identifier: Apache-2.0
"""``run``: run a command of an environment as if it was activated."""

from __future__ import annotations

import argparse

from patchsetlib.installs import environment
from patchsetlib.patches import base
from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.paths import work_dir
from patchsetlib.verbs.python import add_environment_arguments

HELP = "run a command of an environment, patched or stock, e.g. run BASE -- airflow version"
PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_environment_arguments(parser)
    parser.epilog = (
        "The command follows --. It takes the place of this tool: terminal, signals and exit code are its."
    )


def run(args: argparse.Namespace) -> int:
    if not args.rest:
        raise UsageError("no command given", f"e.g. run {args.base} -- airflow version")
    chosen = base.load(args.base)
    variables = environment.variables(environment.python(chosen, not args.stock, args.python))
    if not variables.get("AIRFLOW_HOME"):
        home = work_dir() / chosen.name / ("home-stock" if args.stock else "home-patched")
        variables["AIRFLOW_HOME"] = str(home)
        ui.info(f"AIRFLOW_HOME={home}")
    processes.become(args.rest, variables)
