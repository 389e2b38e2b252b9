# SPDX-License-Identifier: Apache-2.0
"""From commits back to patch files: the same bytes on every machine, from every kind of tree."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches import codemods, series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git, git_dir
from patchsetlib.shell.paths import display
from patchsetlib.shell.staging import remove_tree

# Everything that changes a byte of the output is pinned, also where today's default is the same. No renames:
# each path is then changed, created or deleted on its own, so that an sdist tree can leave out files by name.
_DIFF = """
    --full-index --diff-algorithm=myers --indent-heuristic --unified=3 --inter-hunk-context=0 --no-renames
    --src-prefix=a/ --dst-prefix=b/ --no-ext-diff --no-textconv --no-relative --no-color --submodule=short
""".split()
_MAIL = """
    --no-numbered --zero-commit --no-signature --no-encode-email-headers --always
    --suffix=.patch --filename-max-length=64 --subject-prefix=PATCH
    --no-attach --no-thread --no-notes --no-cover-letter --no-base --no-from --no-signoff
    --no-to --no-cc --no-add-header
""".split()
_HEADER = (
    "# The patches for {base} in the order they are applied; written by: scripts/patchset export {name}\n\n"
)


@dataclass(frozen=True)
class Export:
    """The files of a base's series as they should be."""

    base: Base
    contents: dict[str, str]
    """File name to text: the patches in order, then ``series`` and ``commits``."""

    def changes(self) -> list[str]:
        """Return what differs from the files there are: ``<name>: new``, ``changed`` or ``removed``."""
        directory = self.base.directory
        stale = sorted(path.name for path in directory.glob("*.patch") if path.name not in self.contents)
        found = [f"{name}: removed" for name in stale]
        for name, text in self.contents.items():
            path = directory / name
            if not path.exists():
                found.append(f"{name}: new")
            elif path.read_bytes() != _bytes(text):
                found.append(f"{name}: changed")
        return found

    def write(self) -> None:
        """
        Replace the files; signals wait until it is done, so that the directory is never half old, half new.

        :raises PatchsetError: if they cannot be written
        """
        directory = self.base.directory
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            for leftover in directory.glob(".export-*"):
                remove_tree(leftover)
            with tempfile.TemporaryDirectory(dir=directory, prefix=".export-") as scratch:
                for name, text in self.contents.items():
                    Path(scratch, name).write_bytes(_bytes(text))
                for name in self.contents:
                    os.replace(Path(scratch, name), directory / name)
            for path in directory.glob("*.patch"):
                if path.name not in self.contents:
                    path.unlink()
        except OSError as e:
            raise PatchsetError(f"cannot write {display(directory)}: {e.strerror}") from e
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def format_commits(repository: Path, start: str, tip: str, scratch: Path) -> list[Path]:
    """
    Write the commits ``start..tip`` of ``repository`` as patch files to ``scratch``; return them in order.

    They are formatted in an empty repository that borrows the objects: neither the configuration, the
    attributes nor the worktree of ``repository`` can then change a byte. There they get the neutral author.
    What the codemods make that a commit names in its message is left out of its patch.

    :param scratch: an empty directory
    :raises PatchsetError: if a codemod fails or does not exist
    """
    bare, out = scratch / "objects.git", scratch / "patches"
    start = git("rev-parse", "--verify", f"{start}^{{commit}}", cwd=repository).strip()
    git("init", "--quiet", "--bare", "--template=", "--object-format=sha1", bare, cwd=scratch)
    objects = git("rev-parse", "--path-format=absolute", "--git-path", "objects", cwd=repository).rstrip("\n")
    # In the environment, not in objects/info/alternates: there a line break or a leading quote needs care.
    borrowed = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(objects)}
    paths, parent = [], start
    commits = git("rev-list", "--reverse", "--topo-order", f"{start}..{tip}", cwd=repository).split()
    for number, commit in enumerate(commits, start=1):
        shown = git("show", "--no-patch", "--format=%T %ad%n%B", "--date=raw", commit, cwd=repository)
        first, _, message = shown.partition("\n")
        tree, _, date = first.partition(" ")
        when = {"GIT_AUTHOR_DATE": f"@{date}", "GIT_COMMITTER_DATE": f"@{date}"} | borrowed
        before = codemods.rewritten(
            series.trailers_of(message).get(codemods.TRAILER, ()), parent, bare, borrowed
        )
        root = git("commit-tree", before, cwd=bare, input="before\n", env=when).strip()
        text = message.rstrip("\n") + "\n"
        new = git("commit-tree", tree, "-p", root, cwd=bare, input=text, env=when).strip()
        options = (*_MAIL, *_DIFF, f"--start-number={number}", "-o", out, "-1", new)
        paths.append(Path(git("format-patch", *options, cwd=bare, env=borrowed).rstrip("\n")))
        parent = tree
    return paths


def format_file(repository: Path, start: str, commit: str, file: str) -> str:
    """Return what the patch from ``start`` to ``commit`` says about one file."""
    return git("diff-tree", "--patch", *_DIFF, start, commit, "--", file, cwd=repository)


def _quoted(path: str) -> str:
    # git splits the variable at colons, unless a path is in double quotes.
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def export(base: Base, tree: Path, scratch: Path, tip: str | None = None) -> Export:
    """
    Work out the patch files of ``base`` from the commits in ``tree``; the base's directory is not written to.

    :param scratch: an empty directory
    :param tip: the last commit of the series, in a tree that ``checkout`` has not made; otherwise the branch
    :raises PatchsetError: if the tree is not in a state to be exported
    """
    start, tip = _endpoints(base, tree, tip)
    fresh = source.make_sdist_tree(base, scratch / "fresh") if base.released else None
    from_sdist = fresh is not None and start == gitlib.resolve("HEAD", fresh)
    if not from_sdist and start != base.commit:
        raise PatchsetError(
            f"{display(tree)} does not start from the source that {base.name}/base.toml names",
            "make a new tree with scripts/patchset checkout and move the commits there",
        )
    if fresh is None:
        fresh = clones.borrowed_tree(base, tree, scratch / "fresh")
    (scratch / "formatted").mkdir()
    paths = format_commits(tree, start, tip, scratch / "formatted")
    texts = {path.name: _read(path) for path in paths}
    if from_sdist:
        _keep_left_out(base, tree, fresh, texts, scratch)
    for name, text in texts.items():
        (scratch / "formatted" / "patches" / name).write_bytes(_bytes(text))
    patches = [series.parse(path) for path in paths]
    commits = _apply_again(base, patches, fresh, texts, scratch)
    contents = dict(texts)
    # Last, as they name the others.
    contents["commits"] = commits
    contents["series"] = _series_text(base, list(texts))
    return Export(base, contents)


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def _endpoints(base: Base, tree: Path, last: str | None) -> tuple[str, str]:
    """
    Return the commits that the series starts from and ends with, once ``tree`` is fit to be exported.

    :param last: the one to end with; otherwise the branch that ``checkout`` has made
    """
    where, branch, tag = display(tree), source.branch_name(base), source.tag_name(base)
    if not tree.is_dir():
        raise PatchsetError(f"there is no tree {where}", f"make it: scripts/patchset checkout {base.name}")
    if not gitlib.succeeds("rev-parse", "--git-dir", cwd=tree):
        raise PatchsetError(
            f"{where} is not the root of a git repository", "give the tree that checkout made"
        )
    start = gitlib.resolve(f"refs/tags/{tag}", tree)
    if start is None and last:
        start, tag = gitlib.resolve(base.commit, tree), base.commit[:12]
    tip = gitlib.resolve(last or f"refs/heads/{branch}", tree)
    if last and tip is None:
        raise PatchsetError(f"{where} has no commit {last}", "give the last commit of the series with --tip")
    if start is None or tip is None:
        missing = f"tag {tag}" if start is None else f"branch {branch}"
        raise PatchsetError(f"{where} has no {missing}", "give the tree that checkout made")
    for state, verb in (("rebase-merge", "rebase"), ("rebase-apply", "rebase or am"), ("MERGE_HEAD", "merge"),
                        ("CHERRY_PICK_HEAD", "cherry-pick")):  # fmt: skip
        if git_dir(tree, state).exists():
            raise PatchsetError(f"a {verb} is in progress in {where}", "finish or abort it")
    head = git("symbolic-ref", "--quiet", "--short", "HEAD", cwd=tree, check=False).strip()
    if not last and head != branch:
        raise PatchsetError(f"{where} is not on branch {branch}", f"git switch {branch}")
    dirty = git("status", "--porcelain", "-z", cwd=tree).split("\0")[0]
    if dirty:
        raise PatchsetError(
            f"{where} has changes that are not committed: {dirty[3:]}", "commit or remove them"
        )
    if not gitlib.succeeds("merge-base", "--is-ancestor", start, tip, cwd=tree):
        raise PatchsetError(
            f"{last or branch} in {where} does not start from {tag}", f"git rebase --onto {tag} OLD"
        )
    merge = git("rev-list", "--merges", "--max-count=1", f"{start}..{tip}", cwd=tree).strip()
    if merge:
        raise PatchsetError(
            f"{last or branch} in {where} holds the merge commit {merge[:12]}", f"git rebase {tag}"
        )
    for line in git("log", "--format=%h %s", f"{start}..{tip}", cwd=tree).splitlines():
        commit, _, subject = line.partition(" ")
        if re.match(r"(fixup|squash|amend)! ", subject):
            raise PatchsetError(
                f"{commit} in {where} is left over: {subject}", f"git rebase -i --autosquash {tag}"
            )
        if not subject:
            raise PatchsetError(f"{commit} in {where} has no subject", f"git rebase -i {tag}")
    return start, tip


def _keep_left_out(base: Base, tree: Path, fresh: Path, texts: dict[str, str], scratch: Path) -> None:
    """
    Put the stored patch, byte for byte, in place of what an sdist tree has of it, if that is unchanged.

    Such a tree has only part of some patches; exporting it would lose the rest.

    :raises PatchsetError: if such a patch was changed, so that it is not known what the rest should be
    """
    at_risk = dict(source.recorded_left_out(tree))
    stored: dict[str, Patch] = {}
    try:
        applied = source.apply_series(base, fresh)
    except PatchsetError:
        # The stored files may be broken, and this be the repair; what the tree has on record still counts.
        applied = []
    if any(entry.left_out for entry in applied):
        (scratch / "stored").mkdir()
        formatted = format_commits(fresh, source.tag_name(base), "HEAD", scratch / "stored")
        for entry, path in zip(applied, formatted, strict=True):
            if entry.left_out:
                stored[_read(path)] = entry.patch
                at_risk[entry.patch.subject] = list(entry.left_out)
    git("reset", "--quiet", "--hard", f"refs/tags/{source.tag_name(base)}", cwd=fresh)
    for name, text in texts.items():
        subject = series.subject_of(text)
        if text in stored:
            texts[name] = _read(stored[text].path)
            at_risk.pop(subject, None)
        elif subject in at_risk:
            files = ", ".join(at_risk[subject])
            raise PatchsetError(
                f"{name} was changed, or one before it, and this tree lacks its {files}",
                f"edit it in a full checkout: scripts/patchset checkout {base.name} --source CLONE",
            )
    if at_risk:
        subject, files = next(iter(at_risk.items()))
        raise PatchsetError(
            f"the patch {subject!r} was dropped or renamed, and this tree lacks its {', '.join(files)}",
            "rename it in a full checkout (--source CLONE); to drop it, make a new tree without it in series",
        )


def _apply_again(
    base: Base, patches: Sequence[Patch], fresh: Path, texts: dict[str, str], scratch: Path
) -> str:
    """
    Return the content of ``commits`` after proving that the new files apply and give themselves again.

    :raises PatchsetError: if they do not, e.g. because a message has a line that ends it for ``git am``
    """
    for patch in patches:
        if not patch.files:
            raise PatchsetError(f"{patch.name} is an empty commit", f"git rebase {source.tag_name(base)}")
    applied = source.apply_patches(patches, base, fresh)
    (scratch / "again").mkdir()
    again = format_commits(fresh, source.tag_name(base), "HEAD", scratch / "again")
    for entry, path in zip(applied, again, strict=True):
        name = entry.patch.name
        if path.name != name or (not entry.left_out and _read(path) != texts[name]):
            raise PatchsetError(
                f"{name} does not survive git am and format-patch",
                "look in its message for a line '---', 'diff ', 'From: ' or trailing blanks",
            )
    return source.format_commits(applied)


def _series_text(base: Base, new: Sequence[str]) -> str:
    """Return the new ``series``: what is said about a patch stays with it as long as it stays."""
    old = base.series_file.read_text(encoding="utf-8") if base.series_file.exists() else ""
    header, above, beside, end = _comments(old)
    parts = [header or _HEADER.format(base=base.title, name=base.name)]
    for name in new:
        slug = series.slug(name)
        parts += [above.get(slug, ""), name, beside.get(slug, ""), "\n"]
    return "".join([*parts, end])


def _comments(text: str) -> tuple[str, dict[str, str], dict[str, str], str]:
    """Return a ``series``'s comments: on top up to an empty line, above and beside each patch, at the end."""
    lines = text.splitlines(keepends=True)
    top = 0
    while top < len(lines) and lines[top].startswith("#"):
        top += 1
    if top < len(lines) and lines[top].strip():
        top = 0  # no empty line: this is about the first patch
    # Nothing but comments: the empty line that makes them the file's own may be missing.
    header = "".join(lines[:top]) + "\n" if top else ""
    above: dict[str, str] = {}
    beside: dict[str, str] = {}
    pending = ""
    for line in lines[top + 1 :] if top else lines:
        entry, mark, _ = line.partition("#")
        if entry.strip():
            slug = series.slug(entry.strip())
            above[slug], pending = pending, ""
            beside[slug] = line.rstrip("\n")[len(entry.rstrip()) :] if mark else ""
        else:
            pending += line
    return header, above, beside, pending
