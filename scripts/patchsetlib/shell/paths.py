# SPDX-License-Identifier: Apache-2.0
"""Where things are: the repository, and the disposable ``work/`` directory."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from patchsetlib.shell.errors import PatchsetError

ROOT = Path(__file__).resolve().parents[3]


def work_dir() -> Path:
    """
    Return the directory for everything that can be made again, creating it if needed.

    ``PATCHSET_WORK`` moves it, for a repository on a read-only or small file system.

    :raises PatchsetError: if the directory cannot be written
    """
    path = Path(os.environ.get("PATCHSET_WORK") or ROOT / "work").absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise PatchsetError(f"cannot write to {path}", "set PATCHSET_WORK to a directory you can write to")
    return path


def new_directory(parent: Path) -> Path:
    """Make a directory below ``parent`` that is named after the time, to the microsecond."""
    path = parent / datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    path.mkdir(parents=True)
    return path


def display(path: Path) -> str:
    """Return ``path`` as the user would type it, relative to the current directory where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
