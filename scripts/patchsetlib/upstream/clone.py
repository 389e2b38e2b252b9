# SPDX-License-Identifier: Apache-2.0
"""
A clone of upstream's repository that belongs to the tools, for those who have none.

It is a partial clone below ``work/``: of a commit that is asked for it has the files, of its history nothing
until somebody fetches that.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from patchsetlib.patches import source
from patchsetlib.patches.base import Base
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import work_dir
from patchsetlib.shell.staging import remove_tree, staged

_ID = re.compile("[0-9a-f]{40}")
_PARTIAL = {
    "core.repositoryFormatVersion": "1",
    "extensions.partialClone": "origin",
    "remote.origin.promisor": "true",
    "remote.origin.partialCloneFilter": "blob:none",
}


def clone_with(base: Base, revision: str | None = None) -> Path:
    """
    Return the clone that has the commit of ``base``, fetched if needed, as is ``revision``.

    :param revision: branch, tag or full id of a commit of upstream's
    :raises PatchsetError: if they cannot be fetched
    """
    place = _place(base)
    if not place.exists():
        try:
            with staged(place, discard=remove_tree) as building:
                git("init", "--quiet", "--bare", "--template=", "--object-format=sha1", building, cwd="/")
                git("remote", "add", "origin", base.repository, cwd=building)
                # Whoever fetches the history (--unshallow) gets commits and trees, files only when needed.
                for key, value in _PARTIAL.items():
                    git("config", key, value, cwd=building)
                _fetch(base, building, base.commit)
        except PatchsetError:
            if not place.exists():  # another run may have made it meanwhile
                raise
    for wanted in (base.commit, revision):
        # Where a branch is now, only upstream knows.
        if wanted and not (_ID.fullmatch(wanted) and gitlib.resolve(wanted, place)):
            _fetch(base, place, wanted)
    return place


def existing_clone(base: Base) -> Path | None:
    """Return the clone if it is there and has the commit of ``base``; nothing is fetched."""
    place = _place(base)
    return place if place.exists() and gitlib.resolve(base.commit, place) else None


def forget_removed_trees(base: Base, clone: Path) -> None:
    """Drop the branch of a tree of ``base`` that was removed, as that of an sdist tree goes with it."""
    git("worktree", "prune", cwd=clone)
    # git refuses to delete the branch of a tree that is still there.
    git("branch", "--quiet", "-D", source.branch_name(base), cwd=clone, check=False)


def _place(base: Base) -> Path:
    digest = hashlib.sha256(base.repository.encode()).hexdigest()[:8]
    name = re.sub(r"\W+", "-", base.repository.rstrip("/").rpartition("/")[2]).strip("-") or "upstream"
    return work_dir() / "clones" / f"{name}-{digest}"


def _fetch(base: Base, clone: Path, revision: str) -> None:
    """Fetch one commit with its files but without its history; a branch or tag keeps its name."""
    name = revision.removeprefix("origin/")
    target = f"refs/upstream/{name}" if _ID.fullmatch(name) else f"refs/remotes/{revision}"
    options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1", "--no-filter")
    with ui.step(f"fetching {name} from {base.repository}"):
        try:
            git("fetch", *options, "origin", f"+{name}:{target}", cwd=clone)
        except GitError as e:
            raise PatchsetError(
                f"cannot fetch {name} from {base.repository}: {gitlib.essential(e.stderr)}",
                "check the network, or give --source CLONE, a clone of apache/airflow that has it",
            ) from e
