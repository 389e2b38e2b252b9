# SPDX-License-Identifier: Apache-2.0
"""``wheel``: make patched wheels, to install over the stock ones with pip or uv."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from patchsetlib.installs.wheel import patched_wheels
from patchsetlib.patches import base as bases
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display

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
        wheels = [_copy(wheel, args.dir.absolute()) for wheel in wheels]
    print(*wheels, sep="\n")
    return 0


def _copy(wheel: Path, directory: Path) -> Path:
    target = directory / wheel.name
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(wheel, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        raise PatchsetError(
            f"cannot write to {display(directory)}: {e.strerror}", "name another directory with --dir"
        ) from e
    return target
