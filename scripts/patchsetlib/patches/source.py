# SPDX-License-Identifier: Apache-2.0
"""
Source trees: a base as a git repository, with the series as commits on top.

A tree is made from the sdists of a release, each unpacked to its directory of the monorepo, or as a worktree
of a full clone (``clone``). In both the patches use monorepo paths, and the same patches give the same
commits on every machine.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import series
from patchsetlib.patches.base import Base, Distribution
from patchsetlib.patches.series import Patch
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import display, work_dir
from patchsetlib.shell.staging import staged

# What tools leave in a tree that has no .gitignore of the monorepo.
_IGNORED = "__pycache__/\n*.pyc\n.*_cache/\n*.egg-info/\n.venv/\n"

# The user commits in an sdist tree with plain git; a global gpgSign or autocrlf must not reach it.
_TREE_SETTINGS = f"""\
[user]
\tname = {gitlib.NAME}
\temail = {gitlib.EMAIL}
[commit]
\tgpgSign = false
[core]
\tautocrlf = false
"""

# Always the same commit of a patch: the committer's name comes from gitlib, the date from the patch.
_AM = (
    *("am", "--quiet", "--patch-format=mbox", "--keep-non-patch", "--keep-cr", "-p1", "--no-signoff"),
    *("--no-3way", "--committer-date-is-author-date", "--whitespace=nowarn"),
)


@dataclass(frozen=True)
class Applied:
    """A patch that has become a commit."""

    patch: Patch
    commit: str


def branch_name(base: Base) -> str:
    """Return the branch that holds the series as commits."""
    return f"patchset/{base.name}"


def tag_name(base: Base) -> str:
    """Return the tag of the commit that the series starts from."""
    return f"patchset-base/{base.name}"


def make_sdist_tree(base: Base, directory: Path) -> Path:
    """
    Make a git repository of the base's sdists under monorepo paths, the base tagged, and return its path.

    :param directory: an empty directory, created if it does not exist
    :raises PatchsetError: if an sdist cannot be had or is not what it should be
    """
    base.require_release()
    directory.mkdir(exist_ok=True)
    branch = f"--initial-branch={branch_name(base)}"
    git("init", "--quiet", "--template=", "--object-format=sha1", branch, cwd=directory)
    with (directory / ".git" / "config").open("a", encoding="utf-8") as config:
        config.write(_TREE_SETTINGS)
    (directory / ".git" / "info").mkdir(exist_ok=True)
    (directory / ".git" / "info" / "exclude").write_text(_IGNORED, encoding="utf-8")
    for distribution in base.distributions:
        _unpack(distribution, directory)
    git("add", "--all", "--force", ".", cwd=directory)
    dates = {"GIT_AUTHOR_DATE": base.date, "GIT_COMMITTER_DATE": base.date}
    names = ", ".join(f"{each.project} {each.version}" for each in base.distributions)
    hashes = "".join(f"sha256 {each.sdist.sha256}\n" for each in base.distributions if each.sdist)
    git("commit", "--quiet", "--file=-", cwd=directory, input=f"{names} (sdist)\n\n{hashes}", env=dates)
    git("tag", tag_name(base), cwd=directory)
    return directory


def _unpack(distribution: Distribution, tree: Path) -> None:
    """Write the files of an sdist to their directory, without metadata that the monorepo lacks."""
    from patchsetlib.patches.artifacts import fetch

    assert distribution.sdist is not None
    archive, target = fetch(distribution.sdist), tree / distribution.directory
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".sdist-") as scratch:
        try:
            with tarfile.open(archive) as tar:
                # The first releases of Python 3.10 and 3.11 lack it; the hash says which archive it is.
                tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
                tar.extractall(scratch)
            (top,) = Path(scratch).iterdir()
        except (tarfile.TarError, EOFError, ValueError) as e:
            raise PatchsetError(
                f"{display(archive)} cannot be unpacked: {e}", "delete it and try again"
            ) from e
        (top / "PKG-INFO").unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(top, target)


def apply_series(base: Base, tree: Path, patches: Sequence[Patch] | None = None) -> list[Applied]:
    """
    Apply the patches of ``base`` in order to ``tree`` as commits.

    :param patches: instead of the whole series
    :raises PatchsetError: if a patch does not apply; the tree then holds the patches before it
    """
    return [_apply(patch, base, tree) for patch in (series.load(base) if patches is None else patches)]


def _apply(patch: Patch, base: Base, tree: Path) -> Applied:
    if not patch.files:
        raise PatchsetError(f"{patch.name} changes nothing", "drop it")
    path = patch.path.resolve()
    try:
        git(*_AM, path, cwd=tree)
    except GitError as e:
        git("am", "--abort", cwd=tree, check=False)
        raise PatchsetError(
            f"{patch.name} does not apply: {e.reason}",
            f"to look at it: scripts/patchset checkout {base.name} --before {patch.name} --dir DIR, "
            f"then in DIR: git am --keep-non-patch --reject {shlex.quote(str(path))}",
        ) from e
    return Applied(patch, git("rev-parse", "HEAD", cwd=tree).strip())


def format_commits(applied: Sequence[Applied]) -> str:
    """Return the content of the file ``commits``: one line per patch, id and name."""
    return "".join(f"{entry.commit}  {entry.patch.name}\n" for entry in applied)


def key(base: Base, patched: bool) -> str:
    """Return a short hash of what a tree is made from: the sdists, and the series if ``patched``."""
    digest = hashlib.sha256(base.date.encode())
    for distribution in base.distributions:
        digest.update(f"\0{distribution.directory}\0{distribution.sdist}".encode())
    for name in series.names(base) if patched else ():
        digest.update(f"\0{name}\0".encode() + series.path_of(base, name).read_bytes())
    return digest.hexdigest()[:16]


def cached_tree(base: Base, patched: bool) -> Path:
    """
    Return an sdist tree of ``base`` for reading, made if there is none; do not change it.

    :param patched: with the series applied
    :raises PatchsetError: if it cannot be made
    """
    base.require_release()
    kind = "patched" if patched else "stock"
    tree = work_dir() / base.name / "trees" / f"{kind}-{key(base, patched)}"
    if not tree.exists():
        try:
            with ui.step(f"making the {kind} source tree of {base.name}"), staged(tree) as building:
                make_sdist_tree(base, building)
                if patched:
                    apply_series(base, building)
        except PatchsetError:
            # Another run may have made the same tree meanwhile.
            if not tree.exists():
                raise
    return tree
