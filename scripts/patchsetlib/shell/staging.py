# SPDX-License-Identifier: Apache-2.0
"""Directories that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """
    Give an empty directory beside ``target`` to build in; on success it becomes ``target``.

    On any exception it is removed. What SIGKILL leaves has a hidden name beside ``target``.

    :raises PatchsetError: if ``target`` exists or its place cannot be written
    """
    target = target.absolute()
    if os.path.lexists(target):
        raise PatchsetError(f"{display(target)} exists", "remove it or name another directory with --dir")
    building = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        building.mkdir(parents=True)
    except OSError as e:
        raise PatchsetError(
            f"cannot write to {display(target.parent)}: {e.strerror}", "name another directory with --dir"
        ) from e
    try:
        yield building
        if os.path.lexists(target):
            raise PatchsetError(f"{display(target)} was made by another run meanwhile", "use that one")
        os.rename(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
