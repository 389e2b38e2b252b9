# SPDX-License-Identifier: Apache-2.0
"""Directories that appear complete or not at all, whatever ends the tool."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it; it is no error if it is not there."""
    shutil.rmtree(path, ignore_errors=True)


def try_lock(directory: Path) -> int | None:
    """Return a descriptor that holds the lock of ``directory``; None if another run has it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(target: Path, discard: Callable[[Path], None]) -> None:
    """Remove what runs that were killed have left beside ``target``."""
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        descriptor = try_lock(leftover)
        if descriptor is not None:
            discard(leftover)
            os.close(descriptor)


def _make_parents(target: Path) -> list[Path]:
    """Create the missing parents of ``target`` and return them, innermost first."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def staged(
    target: Path,
    *,
    discard: Callable[[Path], None] = remove_tree,
    publish: Callable[[Path, Path], None] = os.rename,
) -> Iterator[Path]:
    """
    Give an empty directory beside ``target`` to build in; on success it becomes ``target``.

    On any exception it is removed. A run that could not clean up (SIGKILL) leaves it under a hidden name, and
    the next run for the same target removes it.

    :param discard: removes a directory that was built in part
    :param publish: moves the finished directory to ``target``
    :raises PatchsetError: if ``target`` exists or its place cannot be written
    """
    target = target.absolute()
    if os.path.lexists(target):
        raise PatchsetError(f"{display(target)} exists", "remove it or name another directory with --dir")
    parents: list[Path] = []
    building = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        parents = _make_parents(target)
        building.mkdir()
    except OSError as e:
        for parent in parents:
            _remove_empty(parent)
        raise PatchsetError(
            f"cannot write to {display(target.parent)}: {e.strerror}", "name another directory with --dir"
        ) from e
    descriptor = try_lock(building)
    try:
        _sweep(target, discard)
        yield building
        if os.path.lexists(target):
            raise PatchsetError(f"{display(target)} was made by another run meanwhile", "use that one")
        publish(building, target)
    except BaseException:
        discard(building)
        for parent in parents:
            _remove_empty(parent)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _remove_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        pass
