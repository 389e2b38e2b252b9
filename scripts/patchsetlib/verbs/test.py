# SPDX-License-Identifier: Apache-2.0
"""``test``: the tests of the tools, of the patches, of faults, and end to end, in one run of pytest."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from patchsetlib import base as bases
from patchsetlib import environment
from patchsetlib.errors import PatchsetError
from patchsetlib.paths import ROOT, work_dir
from patchsetlib.verbs.run import passed_through

HELP = "run all tests: of the tools, of the patches, of faults, and end to end"
PASSES_ON = True
# The quick ones first.
PARTS = ("tools", "series", "faults", "e2e")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", nargs="*", metavar="BASE", help="only these bases (default: all)")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; repeatable")
    parser.add_argument("-k", metavar="EXPR", help="only tests whose names match, as pytest has it")
    parser.epilog = "Whatever follows -- is for pytest, e.g. -- --lf -x; a path there replaces the parts."


def run(args: argparse.Namespace) -> int:
    chosen = [bases.load(name) for name in args.base or bases.all_bases()]
    parts = [part for part in PARTS if not args.only or part in args.only]
    given = any(os.path.exists(word.partition("::")[0]) for word in args.rest if not word.startswith("-"))
    directories = [] if given else [str(_part(part)) for part in parts]
    if not given and not args.k:
        _prepare(chosen, parts)
    options = [f"--base={name}" for name in args.base]
    options += ["-k", args.k] if args.k else []
    options += ["-q"] if getattr(args, "quiet", False) else []
    return passed_through([*_pytest(), *options, *directories, *args.rest], _variables())


def _part(name: str) -> Path:
    directory = ROOT / "tests" / name
    if not directory.is_dir():
        raise PatchsetError(f"there is no {directory}", "restore tests/ with git")
    return directory


def _prepare(chosen: list[bases.Base], parts: list[str]) -> None:
    """Build what takes long here, where it can be seen, and where an error is one line."""
    for base in chosen:
        if "series" in parts:
            environment.test_python(base)
        if "faults" in parts or "e2e" in parts:
            environment.python(base, patched=False)
            environment.python(base, patched=True)


def _pytest() -> list[str]:
    return [
        *(sys.executable, "-I", "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)),
        *("-o", f"cache_dir={work_dir() / 'pytest-cache'}", "-ra", "--durations=10", "--durations-min=10"),
    ]


def _variables() -> dict[str, str]:
    # Options for other test suites must not get into this one.
    return {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
