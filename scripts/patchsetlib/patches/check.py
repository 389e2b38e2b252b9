# SPDX-License-Identifier: Apache-2.0
"""Are the patch files as ``docs/patch-format.md`` says, and exactly what ``export`` would write?"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches import codemods, series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.export import format_commits, format_file
from patchsetlib.patches.series import Patch
from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import call, git
from patchsetlib.shell.paths import display

AUTHOR = f"{gitlib.NAME} <{gitlib.EMAIL}>"
_NAME = re.compile(r"(\d{4})-[A-Za-z0-9._-]+\.patch")
_PREFIX = re.compile(
    r"(fix|feat|chore|docs?|tests?|refactor|perf|ci|build|style|revert)(\([^)]*\))?!?:", re.IGNORECASE
)
_SUBJECT_LENGTH = 70
_REASON_LENGTH = 200
_FORWARDED = re.compile(r"no|not-needed|https://\S+")
TRAILERS = (
    "Exit-condition",
    "Forwarded",
    "Bug",
    "Applied-Upstream",
    "Depends-on",
    "Tests",
    codemods.TRAILER,
)
_SAYS = (
    (re.compile(r"\brisk", re.IGNORECASE), "names no risk (say what could go wrong, with the word 'risk')"),
    (
        re.compile(r"\b(discard|reject|instead of|rather than|alternativ)", re.IGNORECASE),
        "does not say what was discarded (a sentence with 'discarded', 'rejected', 'instead of' or the like)",
    ),
)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a file."""

    file: Path
    problem: str

    def __str__(self) -> str:
        return f"{display(self.file)}: {self.problem}"


def check(base: Base, clone: Path | None = None) -> Iterator[Finding]:
    """
    Yield everything that is wrong with the series of ``base``.

    :param clone: of upstream's repository; without one the patches for a commit are not applied, and of those
        for a release not the parts that the sdist does not carry
    :raises PatchsetError: if it cannot be checked at all, e.g. as the sdist cannot be had
    """
    try:
        names = series.names(base)
    except PatchsetError as e:
        yield Finding(base.series_file, str(e))
        return
    yield from _listing(base, names)
    patches, complete = [], True
    for name in dict.fromkeys(names):
        path = base.directory / name
        if not path.is_file():
            complete = False
            continue
        try:
            patches.append(series.parse(path))
        except PatchsetError as e:
            complete = False
            yield Finding(path, str(e))
    for subject, count in Counter(patch.subject for patch in patches).items():
        if count > 1:
            yield Finding(base.series_file, f"{count} patches have the subject {subject!r}")
    for patch in patches:
        yield from message(patch)
        yield from content(patch, base.package)
    yield from _cover_letter(base, patches)
    if not complete:
        return
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        if base.released:
            tree = source.make_sdist_tree(base, Path(scratch, "tree"))
            yield from _applied(base, patches, tree, Path(scratch, "again"), listed=True)
        if clone and (not base.released or gitlib.resolve(base.commit, clone)):
            tree = clones.borrowed_tree(base, clone, Path(scratch, "borrowed"))
            yield from _applied(
                base, patches, tree, Path(scratch, "borrowed-again"), listed=not base.released
            )


def _listing(base: Base, names: Sequence[str]) -> Iterator[Finding]:
    present = {path.name for path in base.directory.glob("*.patch")}
    for name, count in Counter(names).items():
        if count > 1:
            yield Finding(base.series_file, f"lists {name} {count} times")
        if name not in present:
            yield Finding(base.series_file, f"lists {name}, which does not exist")
    for name in sorted(present - set(names)):
        yield Finding(base.directory / name, "is not listed in series")
    for number, name in enumerate(dict.fromkeys(names), start=1):
        match = _NAME.fullmatch(name)
        if not match:
            yield Finding(base.series_file, f"{name} is not named NNNN-short-subject.patch")
        elif int(match[1]) != number:
            yield Finding(base.series_file, f"{name} is number {number}; {_export(base)}")


def _cover_letter(base: Base, patches: Sequence[Patch]) -> Iterator[Finding]:
    path = base.directory / "cover-letter.md"
    if not path.is_file():
        yield Finding(path, "is missing; say there why, in which order, at what risk and with what effect")
        return
    text = path.read_text(encoding="utf-8")
    for patch in patches:
        if patch.subject not in text:
            yield Finding(path, f"does not name the patch {patch.subject!r}")
    places = [text.find(patch.subject) for patch in patches if patch.subject in text]
    if places != sorted(places):
        yield Finding(path, "names the patches in another order than series")


def _export(base: Base) -> str:
    return f"scripts/patchset export {base.name} renumbers and refreshes"


def message(patch: Patch) -> Iterator[Finding]:
    """Yield what is wrong with the message of a patch."""
    subject = patch.subject
    if len(subject) >= _SUBJECT_LENGTH:
        yield Finding(patch.path, f"the subject has {len(subject)} characters, {_SUBJECT_LENGTH - 1} at most")
    if subject.endswith("."):
        yield Finding(patch.path, "the subject ends with a period")
    if _PREFIX.match(subject):
        yield Finding(
            patch.path, "the subject starts with a conventional prefix; just say what the patch does"
        )
    elif not re.match(r"(\[[^]]*\] )?[A-Z`\"0-9_]", subject):
        yield Finding(patch.path, "the subject does not start with a capital letter")
    if len(patch.body) < _REASON_LENGTH:
        yield Finding(
            patch.path,
            f"no reason given: the message has {len(patch.body)} characters, {_REASON_LENGTH} at least",
        )
    else:
        for pattern, problem in _SAYS:
            if not pattern.search(patch.body):
                yield Finding(patch.path, f"the message {problem}")
    if not patch.trailer("Exit-condition"):
        yield Finding(
            patch.path, "no exit condition (trailer 'Exit-condition: when the patch can be dropped')"
        )
    for value in patch.trailers.get(codemods.TRAILER, ()):
        try:
            codemods.parse(value)
        except PatchsetError as e:
            yield Finding(patch.path, str(e))
    forwarded = patch.trailer("Forwarded")
    if not forwarded:
        yield Finding(patch.path, "no trailer 'Forwarded: no', 'Forwarded: not-needed' or 'Forwarded: <url>'")
    elif not _FORWARDED.fullmatch(forwarded):
        yield Finding(patch.path, f"trailer 'Forwarded: {forwarded}' is not no, not-needed or a URL")
    for key in patch.trailers:
        if key not in TRAILERS:
            yield Finding(patch.path, f"unknown trailer '{key}:'; known: {', '.join(TRAILERS)}")
    if patch.author != AUTHOR:
        yield Finding(patch.path, f"the author is {patch.author}, not {AUTHOR}")


def content(patch: Patch, package: str) -> Iterator[Finding]:
    """
    Yield what is wrong with what a patch adds, as far as the patch alone shows it.

    :param package: directory of the patched distribution in the monorepo
    """
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        blanks = call("apply", "--numstat", "--whitespace=error-all", patch.path.resolve(), cwd=scratch)
    for line in blanks.err.splitlines():
        match = re.fullmatch(rf"{re.escape(str(patch.path.resolve()))}:(\d+): (.*?)\.?", line)
        if match:
            yield Finding(patch.path, f"line {match[1]}: {match[2]}")
    code = [file for file in patch.files if file.startswith(f"{package}/src/") and file.endswith(".py")]
    tests = [file for file in patch.files if file.startswith(f"{package}/tests/")]
    reason = patch.trailer("Tests")
    if code and not tests and not re.fullmatch(r"none \(.+\)", reason or ""):
        yield Finding(
            patch.path, f"changes {code[0]} without tests; add them or the trailer 'Tests: none (<reason>)'"
        )
    if not patch.files:
        yield Finding(patch.path, "changes nothing")
    for file in patch.created:
        # What tools leave in a tree, such as PKG-INFO. What is meant to be there is below one of these.
        if file.startswith(f"{package}/") and "/" not in file.removeprefix(f"{package}/"):
            yield Finding(patch.path, f"creates {file}, which is neither source, nor test, nor document")


def _applied(
    base: Base, patches: Sequence[Patch], tree: Path, scratch: Path, listed: bool
) -> Iterator[Finding]:
    """
    Apply the series and write it again: whatever differs is not refreshed.

    :param tree: a repository of the base
    :param scratch: a directory to create
    :param listed: whether the ids of the commits there are those in ``commits``
    """
    applied, moved = [], {}
    for patch in patches:
        try:
            said = _said_when_applying(patch, base, tree)
            moved[patch.name] = _offset(said)
            for number in re.findall(r":(\d+): new blank line at EOF", said):
                yield Finding(patch.path, f"line {number}: new blank line at EOF")
            applied += source.apply_patches([patch], base, tree)
        except PatchsetError as e:
            yield Finding(patch.path, str(e))
            return
    scratch.mkdir()
    again = format_commits(tree, source.tag_name(base), "HEAD", scratch)
    fresh = True
    for entry, path in zip(applied, again, strict=True):
        patch = entry.patch
        if path.name != patch.name:
            yield Finding(patch.path, f"should be named {path.name}; {_export(base)}")
        if moved[patch.name]:
            fresh = False
            yield Finding(patch.path, f"{moved[patch.name]}; {_export(base)}")
        elif difference := _difference(entry, _text(path), tree):
            fresh = False
            yield Finding(patch.path, f"is not what export writes: {difference}; {_export(base)}")
    file = source.commits_file(base)
    if listed and fresh and (not file.exists() or _text(file) != source.format_commits(applied)):
        yield Finding(file, f"does not list the commits that the series gives; {_export(base)}")


def _said_when_applying(patch: Patch, base: Base, tree: Path) -> str:
    left_out = source.excludes(source.not_carried(patch, base, tree))
    values = patch.trailers.get(codemods.TRAILER, ())
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        git("read-tree", codemods.rewritten(values, "HEAD", tree), cwd=tree, env=index)
        options = ("--check", "--cached", "--verbose", "--whitespace=error-all")
        return call("apply", *options, *left_out, patch.path.resolve(), cwd=tree, env=index).err


def _offset(said: str) -> str:
    """Return what git says about a hunk that applies elsewhere than it says; empty if all are in place."""
    file = ""
    for line in said.splitlines():
        if match := re.fullmatch(r"Checking patch (.*)\.\.\.", line):
            file = match[1]
        if match := re.fullmatch(r"Hunk #(\d+) succeeded at .*\((offset .*)\)\.?", line):
            return f"hunk {match[1]} of {file} applies at an {match[2]}"
    return ""


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def _head(text: str) -> str:
    return text.partition("\n---\n")[0].rstrip("\n")


def _difference(entry: source.Applied, again: str, tree: Path) -> str:
    """Return where a stored patch differs from what export makes of its commit; empty if nowhere."""
    stored = _text(entry.patch.path)
    if not entry.left_out:
        for number, (old, new) in enumerate(
            zip(stored.split("\n"), again.split("\n"), strict=False), start=1
        ):
            if old != new:
                return f"line {number} should be {new[:60]!r}"
        return "" if len(stored) == len(again) else "it is longer or shorter"
    # The stored patch has more than this tree can show: compare the message, then file by file.
    if _head(stored) != _head(again):
        return "the message differs"
    for file in entry.patch.files:
        if (
            file not in entry.left_out
            and format_file(tree, entry.rewritten, entry.commit, file) not in stored
        ):
            return f"the part for {file} differs"
    return ""
