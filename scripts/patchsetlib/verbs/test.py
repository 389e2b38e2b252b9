# SPDX-License-Identifier: Apache-2.0
"""``test``: the tests of the tools, of the patches, of faults, and end to end; or upstream's own."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from patchsetlib.installs import environment
from patchsetlib.patches import base as bases
from patchsetlib.shell import processes
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.paths import ROOT, work_dir

HELP = "run all tests: of the tools, of the patches, of faults, and end to end; or upstream's own"
PASSES_ON = True
# What takes long for a single test comes first, so that no process waits for another at the end.
PARTS = ("faults", "series", "e2e", "tools")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("base", nargs="*", metavar="BASE", help="only these bases (default: all)")
    add("--base", action="append", dest="more", default=[], help="the same; repeatable")
    add("--only", action="append", choices=PARTS, help="only this part; repeatable")
    add("-k", metavar="EXPR", help="only tests whose names match, as pytest has it")
    add("--all", action="store_true", help="also the tests that take long for what they say")
    add = parser.add_argument_group("upstream's own unit tests, base against patched").add_argument
    own = (
        "run those of this full clone of apache/airflow instead: of executors, jobs and the scheduler "
        "command, and those that the patches change; fails if one newly fails"
    )
    add("--source", metavar="CLONE", type=Path, help=own)
    add("--revision", metavar="REV", help="at this commit, the patches moved there (default: BASE's)")
    add("--paths", metavar="PATH", nargs="+", help="these modules or directories of the monorepo instead")
    add("--python", metavar="X.Y", help="Python to run them with: a version, or an interpreter's path")
    parser.epilog = "Whatever follows -- is for pytest, e.g. -- --lf -x; a path there replaces the parts."


def run(args: argparse.Namespace) -> int:
    args.base += args.more
    if args.source:
        return _run_upstream(args)
    for option in ("revision", "paths", "python"):
        if getattr(args, option):
            raise UsageError(f"--{option} is for upstream's unit tests", "give a clone with --source as well")
    released = [base for base in bases.chosen(args.base) if base.released]
    command = [
        *(sys.executable, "-I", "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)),
        *("-o", f"cache_dir={work_dir() / 'pytest-cache'}", "-ra", "--durations=10", "--durations-min=10"),
        *(f"--base={name}" for name in args.base),
        *(["-k", args.k] if args.k else []),
        *([] if args.all else ["-m", "not nightly"]),
        *(["-q"] if args.quiet else []),
    ]
    if not any(os.path.exists(word.partition("::")[0]) for word in args.rest if not word.startswith("-")):
        parts = [part for part in PARTS if not args.only or part in args.only]
        # A process more than there are processors: of some tests, most is waiting.
        command += ["-n", str(min(len(os.sched_getaffinity(0)) + 1, 8)), "--dist", "loadgroup"]
        command += [str(ROOT / "tests" / part) for part in parts]
        if not args.k:
            _prepare(released, parts)
    # Options for other test suites must not get into this one.
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    processes.become([*command, *args.rest], variables)


def _run_upstream(args: argparse.Namespace) -> int:
    from patchsetlib.upstream import unittests as upstreamtests

    if len(args.base) != 1:
        raise UsageError("--source is for one BASE", f"bases here: {', '.join(bases.all_bases())}")
    if args.only or args.rest:
        given = "--only" if args.only else "what follows --"
        raise UsageError(f"{given} does not go with --source", "choose with --paths or -k")
    base = bases.load(args.base[0])
    return upstreamtests.run(base, args.source, args.revision, args.python, args.paths or [], args.k)


def _prepare(released: list[bases.Base], parts: list[str]) -> None:
    """Build what takes long here, where it can be seen, and where an error is one line."""
    for base in released:
        if "series" in parts or ("faults" in parts and base is released[0]):
            environment.test_python(base)
        if {"faults", "e2e"} & {*parts} and not base.is_provider:
            environment.python(base, patched=True)
