# SPDX-License-Identifier: Apache-2.0
"""Are the patch files as ``docs/patch-format.md`` says, and exactly what ``export`` would write?"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import clone as clones
from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.patches.export import format_commits
from patchsetlib.patches.series import Patch
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import call, git
from patchsetlib.shell.paths import display

_SUBJECT_LENGTH = 69
_MESSAGE_LINES = 40
_REASON_LENGTH = 200
_CAPITAL = re.compile(r"(\[[^]]*\] )?[A-Z`\"0-9_]")
_FORWARDED = re.compile(r"no|not-needed|https://\S+")
TRAILERS = ("Exit-condition", "Forwarded", "Bug", "Applied-Upstream", "Depends-on", "Tests")


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

    :param clone: of upstream's repository; without one the patches for a commit are not applied
    :raises PatchsetError: if it cannot be checked at all, e.g. as an sdist cannot be had
    """
    try:
        names = series.names(base)
    except PatchsetError as e:
        yield Finding(base.series_file, str(e))
        return
    yield from _listing(base, names)
    patches = []
    for name in dict.fromkeys(names):
        try:
            patches.append(series.read(base, name))
        except PatchsetError as e:
            yield Finding(series.path_of(base, name), str(e))
    for subject, count in Counter(patch.subject for patch in patches).items():
        if count > 1:
            yield Finding(base.series_file, f"{count} patches have the subject {subject!r}")
    common = frozenset(
        file for patch in patches if patch.name.startswith(series.COMMON) for file in patch.created
    )
    for patch in patches:
        yield from message(patch)
        yield from content(patch, [each.directory for each in base.distributions], common)
    yield from _documents(base, patches)
    if len(patches) < len(names):
        return
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        tree = Path(scratch, "tree")
        if base.released:
            yield from _applied(base, patches, source.make_sdist_tree(base, tree))
        elif clone:
            yield from _applied(base, patches, clones.borrowed_tree(base, clone, tree))


def _listing(base: Base, names: Sequence[str]) -> Iterator[Finding]:
    for name, count in Counter(names).items():
        if count > 1:
            yield Finding(base.series_file, f"lists {name} {count} times")
    for path in sorted(base.directory.glob("*.patch")):
        if path.name not in names:
            yield Finding(path, "is not listed in series")
    for path in sorted((base.directory.parent / "common").glob("*.patch")):
        if not any(
            f"{series.COMMON}{path.name}" in series.names(bases.load(each)) for each in bases.all_bases()
        ):
            yield Finding(path, "is not listed in any series")


def _documents(base: Base, patches: Sequence[Patch]) -> Iterator[Finding]:
    letter = base.directory / "cover-letter.md"
    if not letter.is_file():
        yield Finding(letter, "is missing; say there why, in which order, at what risk and with what effect")
    else:
        text = letter.read_text(encoding="utf-8")
        for patch in patches:
            if patch.subject not in text:
                yield Finding(letter, f"does not name the patch {patch.subject!r}")
    slugs = [patch.slug for patch in patches]
    for path in sorted((base.directory / "notes").glob("*")):
        if path.suffix != ".md" or path.stem not in slugs:
            yield Finding(path, "belongs to no patch: it is to be called SHORT-SUBJECT.md, as the patch is")


def message(patch: Patch) -> Iterator[Finding]:
    """Yield what is wrong with the message of a patch."""
    subject, body, forwarded = patch.subject, patch.body, patch.trailer("Forwarded") or ""
    length, size, lines = len(subject), len(body), patch.message.count("\n")
    risk, exit_condition = re.search(r"\brisk", body, re.IGNORECASE), patch.trailer("Exit-condition")
    place = _FORWARDED.fullmatch(forwarded)
    rules = [
        (length > _SUBJECT_LENGTH, f"the subject has {length} characters, {_SUBJECT_LENGTH} at most"),
        (subject.endswith("."), "the subject ends with a period"),
        (not _CAPITAL.match(subject), "the subject does not start with a capital letter"),
        (lines > _MESSAGE_LINES, f"the message has {lines} lines, {_MESSAGE_LINES} at most"),
        (size < _REASON_LENGTH, f"no reason given: {size} characters, {_REASON_LENGTH} at least"),
        (not risk, "the message names no risk (say what could go wrong, with the word 'risk')"),
        (not exit_condition, "no exit condition (trailer 'Exit-condition: when the patch can be dropped')"),
        (not place, f"trailer 'Forwarded: {forwarded}' is not no, not-needed or a URL"),
    ]
    yield from (Finding(patch.path, problem) for wrong, problem in rules if wrong)
    for key in patch.trailers:
        if key not in TRAILERS:
            yield Finding(patch.path, f"unknown trailer '{key}:'; known: {', '.join(TRAILERS)}")


def content(
    patch: Patch, directories: Sequence[str], common: frozenset[str] = frozenset()
) -> Iterator[Finding]:
    """
    Yield what is wrong with what a patch changes, as far as the patch alone shows it.

    :param directories: of the distributions in the monorepo
    :param common: the files that common patches create
    """
    if not patch.files:
        yield Finding(patch.path, "changes nothing")
    if patch.name.startswith(series.COMMON) and (others := set(patch.files) - common):
        yield Finding(patch.path, f"changes {min(others)}, which no common patch creates")
    code = [file for file in patch.files if "/src/" in file and file.endswith(".py")]
    tests = [file for file in patch.files if "/tests/" in file]
    if code and not tests and not re.fullmatch(r"none \(.+\)", patch.trailer("Tests") or ""):
        yield Finding(
            patch.path, f"changes {code[0]} without tests; add them or the trailer 'Tests: none (<reason>)'"
        )
    for file in patch.created:
        # What tools leave in a tree, such as PKG-INFO. What is meant to be there is in a directory below.
        if file.rpartition("/")[0] in directories:
            yield Finding(patch.path, f"creates {file}, which is neither source, nor test, nor document")


def _applied(base: Base, patches: Sequence[Patch], tree: Path) -> Iterator[Finding]:
    """
    Apply the series and write it again: what differs is not refreshed.

    :param tree: a repository of the base
    """
    remedy = f"scripts/patchset export {base.name} renumbers and refreshes"
    applied = []
    for patch in patches:
        present = git("ls-files", "-z", cwd=tree).split("\0")
        for file in patch.files:
            if base.released and file not in patch.created and file not in present:
                yield Finding(patch.path, f"changes {file}, which no sdist of this release holds")
        try:
            applied += source.apply_series(base, tree, [patch])
        except PatchsetError as e:
            yield Finding(patch.path, str(e))
            return
        said = call("diff-tree", "--check", "-r", "HEAD^", "HEAD", cwd=tree).stdout
        for place in re.findall(r"^([^+\n].*:\d+: .*?)\.?$", said, re.MULTILINE):
            yield Finding(patch.path, place)
    fresh = True
    again = format_commits(tree, source.tag_name(base), "HEAD", tree.with_name("again"))
    for patch, path in zip(patches, again, strict=True):
        common = patch.name.startswith(series.COMMON)
        name = f"{series.COMMON}{series.slug(path.name)}.patch" if common else path.name
        if name != patch.name:
            yield Finding(patch.path, f"should be named {name}; {remedy}")
        if patch.path.read_bytes() != path.read_bytes():
            fresh = False
            yield Finding(patch.path, f"is not what export writes; {remedy}")
    file, wanted = base.commits_file, source.format_commits(applied).encode()
    if fresh and (not file.exists() or file.read_bytes() != wanted):
        yield Finding(file, f"does not list the commits that the series gives; {remedy}")
