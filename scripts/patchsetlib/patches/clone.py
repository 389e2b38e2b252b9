# SPDX-License-Identifier: Apache-2.0
"""
What is made of a clone of upstream's repository; what it has checked out itself is never touched.

For those who have none there is a shallow one below ``work/``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.patches.source import Applied
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import display, work_dir

_ID = re.compile("[0-9a-f]{40}")


def checkout(base: Base, patches: Sequence[Patch], clone: Path, target: Path) -> None:
    """
    Make ``target`` a worktree of ``clone`` with ``patches`` as commits on the base's branch.

    :raises PatchsetError: if the clone lacks the base, or already has the branch, or a patch does not apply
    """
    resolve(clone, base)
    add_worktree(clone, target, source.branch_name(base), base.commit)
    try:
        source.apply_series(base, target, patches)
    except BaseException:
        remove_worktree(clone, target, source.branch_name(base))
        raise
    git("tag", "--force", source.tag_name(base), base.commit, cwd=clone)


def add_worktree(clone: Path, target: Path, branch: str, start: str) -> None:
    """
    Make ``target`` a worktree of ``clone`` with a new branch.

    :raises PatchsetError: in git's words, e.g. if there is such a branch
    """
    try:
        git("worktree", "add", "--quiet", "-b", branch, target.absolute(), start, cwd=clone)
    except GitError as e:
        where = shlex.quote(display(clone))
        raise PatchsetError(
            e.problem,
            f"if branch {branch} is no longer needed: git -C {where} worktree list, "
            f"git -C {where} worktree remove DIR, git -C {where} branch -D {branch}",
        ) from e


def remove_worktree(clone: Path, tree: Path, branch: str) -> None:
    """Remove a worktree with all that is in it, and its branch."""
    git("worktree", "remove", "--force", tree.absolute(), cwd=clone, check=False)
    git("branch", "--quiet", "-D", branch, cwd=clone, check=False)


def forget_removed_tree(base: Base, clone: Path) -> None:
    """Drop the branch of a worktree that was deleted with ``rm``, as that of an sdist tree goes with it."""
    git("worktree", "prune", cwd=clone)
    # git refuses to delete the branch of a worktree that is still there.
    git("branch", "--quiet", "-D", source.branch_name(base), cwd=clone, check=False)


def resolve(clone: Path, base: Base, revision: str | None = None) -> str:
    """
    Return the id of the commit that ``revision`` names in ``clone``, by default that of ``base``.

    :raises PatchsetError: if ``clone`` is none, or has no such commit
    """
    verify(clone)
    commit = gitlib.resolve(revision or base.commit, clone)
    if commit is None:
        raise PatchsetError(
            f"{display(clone)} has no commit {revision or base.commit}",
            f"fetch it: git -C {shlex.quote(display(clone))} fetch {base.repository} "
            f"{revision or base.tag or base.commit}",
        )
    return commit


def verify(clone: Path) -> None:
    """Raise PatchsetError unless ``clone`` is the root of a git repository."""
    if not clone.is_dir() or gitlib.call("rev-parse", "--git-dir", cwd=clone).returncode:
        raise PatchsetError(
            f"{display(clone)} is not the root of a git repository", "give --source a clone of apache/airflow"
        )


def own(base: Base, revision: str | None = None) -> Path:
    """
    Return the tools' own clone, which has the commit of ``base`` and ``revision``, fetched if needed.

    :param revision: branch of upstream's (``origin/main``), tag, or full id of a commit
    :raises PatchsetError: if they cannot be fetched
    """
    place = _own_place(base)
    place.parent.mkdir(parents=True, exist_ok=True)
    git("init", "--quiet", "--bare", "--template=", "--object-format=sha1", place, cwd=place.parent)
    for wanted in filter(None, (base.commit, revision)):
        # Where a branch is now, only upstream knows.
        if _ID.fullmatch(wanted) and gitlib.resolve(wanted, place):
            continue
        name = wanted.removeprefix("origin/")
        target = f"refs/upstream/{name}" if _ID.fullmatch(name) else f"refs/remotes/origin/{name}"
        fetch = ("fetch", "--quiet", "--no-tags", "--depth=1", base.repository, f"+{name}:{target}")
        with ui.step(f"git fetch --depth=1 {base.repository} {name}"):
            try:
                git(*fetch, cwd=place)
            except GitError as e:
                raise PatchsetError(
                    f"cannot fetch {name} from {base.repository}: {e.reason}",
                    "check the network, or give --source CLONE, a clone of apache/airflow that has it",
                ) from e
    return place


def existing_own(base: Base) -> Path | None:
    """Return the tools' own clone if it is there and has the commit of ``base``; nothing is fetched."""
    place = _own_place(base)
    return place if place.exists() and gitlib.resolve(base.commit, place) else None


def _own_place(base: Base) -> Path:
    return work_dir() / "clones" / re.sub(r"\W+", "-", base.repository).strip("-")


def borrow(repository: Path, directory: Path) -> Path:
    """
    Make ``directory`` an empty git repository that borrows the objects of another, and return its path.

    Neither configuration, attributes nor the worktree of ``repository`` have an effect there.
    """
    directory.mkdir()
    git("init", "--quiet", "--template=", "--object-format=sha1", cwd=directory)
    objects, shallow = (
        Path(git("rev-parse", "--path-format=absolute", "--git-path", name, cwd=repository).rstrip("\n"))
        for name in ("objects", "shallow")
    )
    alternates = directory / ".git" / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_bytes(os.fsencode(objects) + b"\n")
    if shallow.exists():
        shutil.copy(shallow, directory / ".git")
    return directory


def borrowed_tree(base: Base, clone: Path, directory: Path) -> Path:
    """
    Make a git repository at the commit of ``base``, tagged, and return its path; ``clone`` is only read.

    Its worktree is empty: ``git am`` writes the files that a patch changes when it needs them. So it is made
    in no time, to apply a series and look at the commits.

    :param directory: created
    :raises PatchsetError: if the clone lacks the base
    """
    resolve(clone, base)
    borrow(clone, directory)
    git("update-ref", "HEAD", base.commit, cwd=directory)
    git("tag", source.tag_name(base), base.commit, cwd=directory)
    git("read-tree", "HEAD", cwd=directory)
    return directory


def fetch_series(base: Base, clone: Path) -> tuple[str, str, list[Applied]]:
    """
    Give ``clone`` the commits of the series on its own base; it need not have the commit of a release.

    :return: ids of the base and of the last commit, and the commits; no branch or tag names them
    :raises PatchsetError: if they cannot be made
    """
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        if base.released:
            tree, patches = source.cached_tree(base, patched=True), series.load(base)
            start = gitlib.resolve(source.tag_name(base), tree) or ""
            commits = git("rev-list", "--reverse", f"{start}..HEAD", cwd=tree).split()
            applied = [Applied(*each) for each in zip(patches, commits, strict=True)]
        else:
            tree = borrowed_tree(base, clone, Path(scratch, "tree"))
            start, applied = base.commit, source.apply_series(base, tree)
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=")
        git("fetch", *options, tree.absolute(), "HEAD", cwd=clone)
    return start, applied[-1].commit if applied else start, applied
