# SPDX-License-Identifier: Apache-2.0
"""
Source trees: a base as a git repository, with the series as commits on top.

A tree is made either from the sdist, which carries only part of the monorepo, or as a worktree of a full
clone. In both the patches use monorepo paths, and in both the same patches give the same commits everywhere.
A commit holds what the codemods of its patch make of its parent, and the patch on top (``codemods``).
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from patchsetlib.patches import codemods, series
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git, git_dir
from patchsetlib.shell.paths import display, work_dir
from patchsetlib.shell.staging import staged

# What tools leave in a tree that has no .gitignore of the monorepo.
_IGNORED = "__pycache__/\n*.pyc\n.*_cache/\n*.egg-info/\n.venv/\n"

# The user commits in an sdist tree with plain git; a global gpgSign or autocrlf must not reach it.
_TREE_SETTINGS = {
    "user.name": gitlib.NAME,
    "user.email": gitlib.EMAIL,
    "commit.gpgSign": "false",
    "core.autocrlf": "false",
}


@dataclass(frozen=True)
class Applied:
    """A patch that has become a commit."""

    patch: Patch
    commit: str
    left_out: tuple[str, ...]
    """Files of the patch that the tree does not carry."""
    rewritten: str
    """Commit that the patch was applied to: the parent, or what its codemods have made of that."""


def branch_name(base: Base) -> str:
    """Return the branch that holds the series as commits."""
    return f"patchset/{base.name}"


def tag_name(base: Base) -> str:
    """Return the tag of the commit that the series starts from."""
    return f"patchset-base/{base.name}"


def make_sdist_tree(base: Base, directory: Path) -> Path:
    """
    Make a git repository of the base's sdist under monorepo paths, the base tagged, and return its path.

    :param directory: an empty directory, created if it does not exist
    :raises PatchsetError: if the sdist cannot be had or is not what it should be
    """
    from patchsetlib.patches.artifacts import fetch

    directory.mkdir(exist_ok=True)
    git(
        "init",
        "--quiet",
        "--template=",
        "--object-format=sha1",
        f"--initial-branch={branch_name(base)}",
        cwd=directory,
    )
    for key, value in _TREE_SETTINGS.items():
        git("config", key, value, cwd=directory)
    info = directory / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "exclude").write_text(_IGNORED, encoding="utf-8")
    _unpack(fetch(base.sdist), directory / base.package)
    git("add", "--all", "--force", ".", cwd=directory)
    dates = {"GIT_AUTHOR_DATE": base.date, "GIT_COMMITTER_DATE": base.date}
    message = f"{base.sdist.project} {base.sdist.version} (sdist)\n\nsha256 {base.sdist.sha256}\n"
    git("commit", "--quiet", "--file=-", cwd=directory, input=message, env=dates)
    git("tag", tag_name(base), cwd=directory)
    return directory


def _unpack(archive: Path, directory: Path) -> None:
    """Write the files of an sdist to ``directory``, without the metadata that the monorepo does not have."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                inside = PurePosixPath(*path.parts[1:])
                if member.isdir() or inside == PurePosixPath("PKG-INFO"):
                    continue
                content = tar.extractfile(member) if member.isfile() else None
                if content is None or path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
                    raise PatchsetError(f"{display(archive)} holds an unexpected entry {member.name!r}")
                target = directory / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError) as e:
        raise PatchsetError(f"{display(archive)} cannot be unpacked: {e}", "delete it and try again") from e


def apply_series(base: Base, tree: Path) -> list[Applied]:
    """
    Apply the whole series of ``base`` to ``tree`` as commits.

    :raises PatchsetError: if a patch does not apply; the tree then holds the patches before it
    """
    return apply_patches(series.load(base).patches, base, tree)


def apply_patches(patches: Sequence[Patch], base: Base, tree: Path) -> list[Applied]:
    """
    Apply ``patches`` in order to ``tree`` as commits.

    A patch may change files that an sdist does not carry; in a tree made from one that part is left out.
    Files below ``<package>/src`` are in every tree.

    :raises PatchsetError: if a patch does not apply; the tree then holds the patches before it
    """
    return [_apply(patch, base, tree) for patch in patches]


def _apply(patch: Patch, base: Base, tree: Path) -> Applied:
    left_out = not_carried(patch, base, tree)
    parent, rewritten = run_codemods(patch, tree)
    try:
        git(*am("--no-3way", *excludes(left_out), patch.path.resolve()), cwd=tree)
    except GitError as e:
        git("am", "--abort", cwd=tree, check=False)
        move_head(tree, rewritten, parent)
        reason = gitlib.essential(e.stderr).removeprefix("patch failed: ")
        raise PatchsetError(
            f"{patch.name} does not apply: {reason}",
            f"to look at it: scripts/patchset checkout {base.name} --before {patch.name} --dir DIR, "
            f"then in DIR: git apply --reject {shlex.quote(str(patch.path.resolve()))}",
        ) from e
    return Applied(patch, fold(tree, parent, rewritten), left_out, rewritten)


def am(*args: str | Path) -> tuple[str | Path, ...]:
    """Return the arguments by which git makes a commit of a patch, always the same one."""
    return (
        *("am", "--quiet", "--patch-format=mbox", "--keep-non-patch", "--keep-cr", "-p1", "--no-signoff"),
        *("--no-gpg-sign", "--committer-date-is-author-date", "--whitespace=nowarn", *args),
    )


def run_codemods(patch: Patch, tree: Path) -> tuple[str, str]:
    """
    Let the codemods of ``patch`` rewrite what ``tree`` has checked out, as a commit of its own.

    :return: the commit before and the one after, the same if nothing was to be done
    :raises PatchsetError: if that fails; the tree then is as before
    """
    parent = git("rev-parse", "HEAD", cwd=tree).strip()
    values = patch.trailers.get(codemods.TRAILER, ())
    if not values:
        return parent, parent
    new = codemods.rewritten(values, parent, tree)
    if new == git("rev-parse", f"{parent}^{{tree}}", cwd=tree).strip():
        return parent, parent
    dates = {"GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}
    message = "".join(f"{codemods.TRAILER}: {value}\n" for value in values)
    commit = git("commit-tree", new, "-p", parent, cwd=tree, input=message, env=dates).strip()
    move_head(tree, parent, commit)
    return parent, commit


def move_head(tree: Path, old: str, new: str) -> None:
    """Check out the commit ``new`` in place of ``old``; only files that differ between them are touched."""
    if old != new:
        git("read-tree", "-m", "-u", old, new, cwd=tree)
        git("update-ref", "HEAD", new, cwd=tree)


def fold(tree: Path, parent: str, rewritten: str) -> str:
    """
    Make one commit of what the codemods did and of the patch, and return its id.

    :param tree: has the patch as a commit on top of ``rewritten``
    :param parent: the commit before the codemods
    """
    if parent != rewritten:
        commit_again(tree, parent)
    return git("rev-parse", "HEAD", cwd=tree).strip()


def commit_again(tree: Path, parent: str) -> None:
    """Make the newest commit of ``tree`` one on ``parent``, with the date and committer of every patch."""
    shown = git("show", "--no-patch", "--format=%an%n%ae%n%ad%n%B", "--date=raw", "HEAD", cwd=tree)
    name, email, date, message = shown.split("\n", 3)
    who = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email}
    when = {"GIT_AUTHOR_DATE": f"@{date}", "GIT_COMMITTER_DATE": f"@{date}"}
    text = message.rstrip("\n") + "\n"
    commit = git("commit-tree", "HEAD^{tree}", "-p", parent, cwd=tree, input=text, env=who | when)
    git("update-ref", "HEAD", commit.strip(), cwd=tree)


def not_carried(patch: Patch, base: Base, tree: Path) -> tuple[str, ...]:
    """Return the files that ``patch`` changes and ``tree`` lacks because it was made from an sdist."""
    changed = [file for file in patch.files if file not in patch.created]
    candidates = [file for file in changed if not file.startswith(f"{base.package}/src/")]
    if not candidates or not is_sdist_tree(base, tree):
        return ()
    present = git("ls-files", "-z", cwd=tree).split("\0")
    return tuple(file for file in candidates if file not in present)


def excludes(files: Sequence[str]) -> list[str]:
    """Return the options by which ``git am`` and ``git apply`` leave out ``files``."""
    return ["--exclude=" + re.sub(r"([][*?\\])", r"\\\1", file) for file in files]


def is_sdist_tree(base: Base, tree: Path) -> bool:
    """Return whether ``tree`` was made from the sdist, not from a clone, which has upstream's commit."""
    return gitlib.resolve(base.commit, tree) is None


def warn_left_out(applied: Sequence[Applied]) -> None:
    """Say loudly which parts of the series the tree does not have."""
    for entry in applied:
        for file in entry.left_out:
            ui.warn(f"{entry.patch.name}: left out {file}, the sdist does not carry it")


def record_left_out(applied: Sequence[Applied], tree: Path) -> None:
    """Note in the tree's git directory what was left out, for ``export``."""
    lines = [f"{entry.patch.subject}\t{file}\n" for entry in applied for file in entry.left_out]
    git_dir(tree, "patchset-left-out").write_text("".join(lines), encoding="utf-8")


def recorded_left_out(tree: Path) -> dict[str, list[str]]:
    """Return what was left out when the tree was made: subject to files."""
    path = git_dir(tree, "patchset-left-out")
    found: dict[str, list[str]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            subject, _, file = line.partition("\t")
            found.setdefault(subject, []).append(file)
    return found


def commits_file(base: Base) -> Path:
    """Return the path of the file with the ids of the series, on the sdist tree or on upstream's commit."""
    return base.directory / "commits"


def format_commits(applied: Sequence[Applied]) -> str:
    """Return the content of ``commits``: one line per patch, id and file name."""
    return "".join(f"{entry.commit}  {entry.patch.name}\n" for entry in applied)


def key(base: Base, patched: bool) -> str:
    """Return a short hash of what a tree is made from: the sdist, and the series if ``patched``."""
    digest = hashlib.sha256(f"{base.sdist.sha256} {base.package} {base.date}".encode())
    if patched:
        for name in series.names(base):
            digest.update(f"\0{name}\0".encode())
            path = base.directory / name
            try:
                digest.update(path.read_bytes())
            except OSError as e:
                raise PatchsetError(
                    f"{display(path)} cannot be read: {e.strerror}", "restore it with git"
                ) from e
    return digest.hexdigest()[:16]


def cached_tree(base: Base, patched: bool) -> Path:
    """
    Return an sdist tree of ``base`` for reading, made if there is none; do not change it.

    :param patched: with the series applied
    :raises PatchsetError: if it cannot be made
    """
    name = f"{'patched' if patched else 'stock'}-{key(base, patched)}"
    tree = work_dir() / base.name / "trees" / name
    if not tree.exists():
        with ui.step(f"making the {'patched' if patched else 'stock'} source tree of {base.name}"):
            try:
                with staged(tree) as building:
                    make_sdist_tree(base, building)
                    if patched:
                        warn_left_out(apply_series(base, building))
            except PatchsetError:
                # Another run may have made the same tree meanwhile.
                if not os.path.isdir(tree):
                    raise
    return tree
