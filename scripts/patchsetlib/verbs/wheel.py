# SPDX-License-Identifier: Apache-2.0
"""``wheel``: make patched wheels, to install over the stock ones with pip or uv."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from patchsetlib.installs.wheel import patched_wheels
from patchsetlib.patches import base as bases
from patchsetlib.shell.errors import PatchsetError

HELP = "make patched wheels of a release, to install over the stock ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="for example 3.3.2; see patchset status")
    parser.add_argument("--dir", metavar="DIR", type=Path, help="copy them there (default: below work/BASE)")
    parser.epilog = (
        "There is one wheel for each distribution that the patches change. Install them together, without "
        "dependencies: pip install --no-deps WHEEL WHEEL"
    )


def run(args: argparse.Namespace) -> int:
    base = bases.load(args.base)
    wheels = patched_wheels(base)
    if not wheels:
        raise PatchsetError(
            f"the series of {base.name} changes no installed file", "there is no wheel to make"
        )
    if args.dir:
        directory = args.dir.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=directory) as scratch:
            for wheel in wheels:
                os.replace(shutil.copyfile(wheel, Path(scratch, wheel.name)), directory / wheel.name)
        wheels = [directory / wheel.name for wheel in wheels]
    print(*wheels, sep="\n")
    return 0
