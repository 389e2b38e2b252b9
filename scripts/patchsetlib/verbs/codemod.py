# SPDX-License-Identifier: Apache-2.0
"""``patchset codemod``: moves tests and other code to what the patches leave of Job."""

from __future__ import annotations

import argparse

from patchsetlib.shell import ui

HELP = "move code from Job(executor=X) and job.executor to SchedulerJobRunner"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file, or a directory with all below it")
    parser.add_argument(
        "--check",
        "--dry-run",
        action="store_true",
        help="write nothing; fail if something would be changed or is left to do",
    )


def run(args: argparse.Namespace) -> int:
    from codemods import executors_to_runner

    result = executors_to_runner.rewrite(args.paths, check=args.check)
    for line in executors_to_runner.lines(result):
        print(line)
    if not result.counts and not result.reports:
        ui.info("nothing to do")
    return executors_to_runner.exit_code(result, args.check)
