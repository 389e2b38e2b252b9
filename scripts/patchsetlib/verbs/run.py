# SPDX-License-Identifier: Apache-2.0
"""``run``: run a command of an environment as if it was activated."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from patchsetlib.installs import environment
from patchsetlib.patches import base
from patchsetlib.shell import processes, ui
from patchsetlib.shell.paths import work_dir
from patchsetlib.verbs.python import add_environment_arguments

HELP = "run a command of an environment, patched or stock, e.g. run 3.1.3 -- airflow version"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_environment_arguments(parser)
    parser.add_argument("command", nargs="+", metavar="-- ARGS", help="the command")


def run(args: argparse.Namespace) -> int:
    command = _as_written(args.command)
    chosen = base.load(args.base)
    variables = environment.variables(environment.python(chosen, not args.stock, args.python))
    if not variables.get("AIRFLOW_HOME"):
        home = work_dir() / chosen.name / ("home-stock" if args.stock else "home-patched")
        variables["AIRFLOW_HOME"] = str(home)
        ui.info(f"AIRFLOW_HOME={home}")
    return passed_through(command, variables)


def _as_written(command: list[str]) -> list[str]:
    """Return ``command`` with the ``--`` of its own that argparse takes away besides the first one."""
    written = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    same = [word for word in written if word != "--"] == [word for word in command if word != "--"]
    return written if same else command


def passed_through(command: list[str], variables: dict[str, str]) -> int:
    """
    Run ``command`` with the tool's stdin, stdout and terminal, and return its exit code.

    Ctrl-C is the command's business: in a terminal it gets it directly, elsewhere it is handed on. When the
    tool is asked to end, or is killed, so is the command with all of its descendants.
    """
    foreground = _in_foreground()
    running: list[processes.Guarded] = []
    early: list[int] = []

    def interrupted(number: int, frame: FrameType | None) -> None:
        if not running:
            early.append(number)
        elif not foreground:
            running[0].send_signal(number)

    # Set before the start, since the command may be at work before the tool knows that it is.
    previous = signal.getsignal(signal.SIGINT)
    if previous != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupted)
    try:
        with processes.Guarded.start(command, env=variables, stdin=None, foreground=foreground) as process:
            running.append(process)
            for number in early:
                interrupted(number, None)
            code = process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    # A shell would say the same of a command that a signal has ended.
    return code if code >= 0 else 128 - code


def _in_foreground() -> bool:
    """Return whether Ctrl-C in a terminal would reach this process."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
