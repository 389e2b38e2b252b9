# SPDX-License-Identifier: Apache-2.0
"""A shallow clone of upstream's repository below ``work/``, for those who have none."""

from __future__ import annotations

import re
from pathlib import Path

from patchsetlib.patches.base import Base
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import work_dir

_ID = re.compile("[0-9a-f]{40}")


def clone_with(base: Base, revision: str | None = None) -> Path:
    """
    Return the clone, which has the commit of ``base`` and ``revision``, fetched if needed.

    :param revision: branch of upstream's (``origin/main``), tag, or full id of a commit
    :raises PatchsetError: if they cannot be fetched
    """
    place = _place(base)
    place.parent.mkdir(parents=True, exist_ok=True)
    git("init", "--quiet", "--bare", "--template=", "--object-format=sha1", place, cwd=place.parent)
    git("config", "remote.origin.url", base.repository, cwd=place)
    for wanted in filter(None, (base.commit, revision)):
        # Where a branch is now, only upstream knows.
        if not (_ID.fullmatch(wanted) and gitlib.resolve(wanted, place)):
            _fetch(base, place, wanted)
    return place


def existing_clone(base: Base) -> Path | None:
    """Return the clone if it is there and has the commit of ``base``; nothing is fetched."""
    place = _place(base)
    return place if place.exists() and gitlib.resolve(base.commit, place) else None


def _place(base: Base) -> Path:
    return work_dir() / "clones" / re.sub(r"\W+", "-", base.repository).strip("-")


def _fetch(base: Base, clone: Path, revision: str) -> None:
    """Fetch one commit without its history; a branch becomes a remote-tracking branch."""
    name = revision.removeprefix("origin/")
    target = f"refs/upstream/{name}" if _ID.fullmatch(name) else f"refs/remotes/origin/{name}"
    with ui.step(f"git fetch --depth=1 {base.repository} {name}"):
        try:
            git("fetch", "--quiet", "--no-tags", "--depth=1", "origin", f"+{name}:{target}", cwd=clone)
        except GitError as e:
            raise PatchsetError(
                f"cannot fetch {name} from {base.repository}: {e.reason}",
                "check the network, or give --source CLONE, a clone of apache/airflow that has it",
            ) from e
