# SPDX-License-Identifier: Apache-2.0
"""From commits back to patch files: the same bytes on every machine, from every kind of tree."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.patches.source import Applied
from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display

AUTHOR = f"{gitlib.NAME} <{gitlib.EMAIL}>"
# What differs between versions of git, or is left to the user. No renames: each path is then changed, created
# or deleted on its own, and check can tell which files an sdist must hold.
_FORMAT = """
    --no-numbered --zero-commit --no-signature --no-encode-email-headers --always --filename-max-length=64
    --full-index --diff-algorithm=myers --indent-heuristic --no-renames
""".split()
_FROM = re.compile(r"^From: .*\n(?:[ \t].*\n)*", re.MULTILINE)


def format_commits(repository: Path, start: str, tip: str, scratch: Path) -> list[Path]:
    """
    Write the commits ``start..tip`` of ``repository`` as patch files below ``scratch``; return them in order.

    They are formatted in an empty repository that borrows the objects: neither the configuration, the
    attributes nor the worktree of ``repository`` can then change a byte. All get the neutral author.

    :param scratch: a directory, created
    """
    scratch.mkdir()
    start, tip = (gitlib.resolve(name, repository) or name for name in (start, tip))
    bare = clones.borrow(repository, scratch / "objects")
    listed = git("format-patch", *_FORMAT, "-o", scratch / "patches", f"{start}..{tip}", cwd=bare)
    paths = [Path(line) for line in listed.splitlines()]
    for path in paths:
        text = path.read_bytes().decode(errors="surrogateescape")
        text = _FROM.sub(f"From: {AUTHOR}\n", text, count=1)
        path.write_bytes(text.encode(errors="surrogateescape"))
    return paths


def export(base: Base, tree: Path, scratch: Path) -> dict[Path, bytes | None]:
    """
    Work out from the commits in ``tree`` what changes in the patch files of ``base``; nothing is written.

    :param scratch: an empty directory
    :return: path to new content, None if the file goes; ``commits`` and ``series``, which name the patches,
        follow them
    :raises PatchsetError: if the tree is not in a state to be exported
    """
    start, tip = _endpoints(base, tree)
    if base.released:
        fresh = source.make_sdist_tree(base, scratch / "fresh")
    else:
        fresh = clones.borrowed_tree(base, tree, scratch / "fresh")
    if start not in (base.commit, gitlib.resolve("HEAD", fresh)):
        raise PatchsetError(
            f"{display(tree)} does not start from the source that {base.name}/base.toml names",
            "make a new tree with scripts/patchset checkout and move the commits there",
        )
    paths = format_commits(tree, start, tip, scratch / "formatted")
    old = series.names(base) if base.series_file.exists() else []
    common = {series.slug(name) for name in old if name.startswith(series.COMMON)}
    slugs = [series.slug(path.name) for path in paths]
    names = [
        f"{series.COMMON}{slug}.patch" if slug in common else path.name
        for path, slug in zip(paths, slugs, strict=True)
    ]
    patches = [series.parse(path, name) for path, name in zip(paths, names, strict=True)]
    commits = source.format_commits(_apply_again(base, patches, fresh, scratch / "again")).encode()
    contents: dict[Path, bytes | None] = {}
    if base.released and commits != _read(base.commits_file):
        contents[base.directory / "base.toml"] = _next_version(base)
    contents |= {series.path_of(base, patch.name): patch.path.read_bytes() for patch in patches}
    contents |= {base.commits_file: commits, base.series_file: _series_text(base, names).encode()}
    contents |= {path: None for path in sorted(base.directory.glob("*.patch")) if path not in contents}
    return {path: content for path, content in contents.items() if content != _read(path)}


def write(changes: dict[Path, bytes | None]) -> None:
    """Replace the files in their order, each at once."""
    for path, content in changes.items():
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content)
        os.replace(temporary, path)


def _endpoints(base: Base, tree: Path) -> tuple[str, str]:
    """Return the commits that the series starts from and ends with, once ``tree`` is fit to be exported."""
    where, branch, tag = display(tree), source.branch_name(base), source.tag_name(base)
    if not tree.is_dir():
        raise PatchsetError(f"there is no tree {where}", f"make it: scripts/patchset checkout {base.name}")
    start, tip = (gitlib.resolve(name, tree) for name in (f"refs/tags/{tag}", f"refs/heads/{branch}"))
    if start is None or tip is None:
        missing = f"tag {tag}" if start is None else f"branch {branch}"
        raise PatchsetError(f"{where} has no {missing}", "give the tree that checkout made")
    if git("symbolic-ref", "--quiet", "--short", "HEAD", cwd=tree, check=False).strip() != branch:
        raise PatchsetError(
            f"{where} is not on branch {branch}", f"git rebase --continue or --abort, or git switch {branch}"
        )
    if dirty := git("status", "--porcelain", "-z", cwd=tree).split("\0")[0]:
        raise PatchsetError(
            f"{where} has changes that are not committed: {dirty[3:]}", "commit or remove them"
        )
    if gitlib.call("merge-base", "--is-ancestor", start, tip, cwd=tree).returncode:
        raise PatchsetError(f"{branch} in {where} does not start from {tag}", f"git rebase --onto {tag} OLD")
    if merge := git("rev-list", "--merges", "--max-count=1", f"{start}..{tip}", cwd=tree).strip():
        raise PatchsetError(f"{branch} in {where} holds the merge commit {merge[:12]}", f"git rebase {tag}")
    for line in git("log", "--format=%h %s", f"{start}..{tip}", cwd=tree).splitlines():
        commit, _, subject = line.partition(" ")
        if re.match(r"(fixup|squash|amend)! ", subject):
            raise PatchsetError(
                f"{commit} in {where} is left over: {subject}", f"git rebase -i --autosquash {tag}"
            )
    return start, tip


def _apply_again(base: Base, patches: Sequence[Patch], fresh: Path, scratch: Path) -> list[Applied]:
    """
    Apply new patches to a tree of the base after proving that they give themselves again.

    :raises PatchsetError: if they do not, e.g. because a message has a line that ends it for ``git am``
    """
    try:
        applied = source.apply_series(base, fresh, patches)
    except PatchsetError as e:
        raise PatchsetError(e.problem, f"git rebase -i {source.tag_name(base)}") from e
    again = format_commits(fresh, source.tag_name(base), "HEAD", scratch)
    for patch, path in zip(patches, again, strict=True):
        if (path.name, path.read_bytes()) != (patch.path.name, patch.path.read_bytes()):
            raise PatchsetError(
                f"{patch.path.name} does not survive git am and format-patch",
                "look in its message for a line '---', 'diff ', 'From: ' or trailing blanks",
            )
    return applied


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _next_version(base: Base) -> bytes:
    """Return ``base.toml`` with the next version of the series."""
    text = (base.directory / "base.toml").read_bytes()
    number = base.series_version + 1
    return re.sub(rb"^series-version = .*$", b"series-version = %d" % number, text, count=1, flags=re.M)


def _series_text(base: Base, names: Sequence[str]) -> str:
    """Return the new ``series``; of the old one the comments on top stay."""
    header = (
        f"# The patches for {base.title} in the order they are applied; written by: "
        f"scripts/patchset export {base.name}\n\n"
    )
    old = base.series_file.read_text(encoding="utf-8") if base.series_file.exists() else ""
    kept = itertools.takewhile(lambda line: line.startswith(("#", "\n")), old.splitlines(keepends=True))
    return ("".join(kept) or header) + "".join(f"{name}\n" for name in names)
