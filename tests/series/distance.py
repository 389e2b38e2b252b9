# SPDX-License-Identifier: Apache-2.0
"""
How far a series is from that of another base: messages, and the lines that the patches add and remove.

What stands around those lines is the base's, and not compared. To print what test_distance.py wants recorded:

    PYTHONPATH=scripts PYTHON tests/series/distance.py main-c5e70a9 3.1.3
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import series
from patchsetlib.patches.series import Patch
from patchsetlib.shell.git import call, git


@dataclass
class Distance:
    """What two patches have in common, and what not."""

    subject: str
    same: int = 0
    """Number of changed lines that are in both."""
    differing: dict[str, list[str]] = field(default_factory=dict)
    """What is only in the other (``<``) or only in this patch (``>``): lines, by file; and of the message."""
    only_here: tuple[str, ...] = ()
    """Files that only this patch changes."""

    @property
    def only_in(self) -> dict[str, int]:
        """Number of changed lines that are only in the other (``<``) or only in this patch (``>``)."""
        lines = [line for file, lines in self.differing.items() if file != "message" for line in lines]
        return {mark: sum(line.startswith(mark) for line in lines) for mark in "<>"}

    def __str__(self) -> str:
        parts = [self.subject]
        counts = self.only_in
        parts.append(f"  changed lines: {self.same} in both, {counts['<']} only <, {counts['>']} only >")
        for title, lines in self.differing.items():
            parts += [f"  {title}", *(f"    {line}" for line in lines)]
        parts += [f"  only > {file}" for file in self.only_here]
        return "\n".join(parts) + "\n"


def distances(name: str, other: str) -> list[Distance]:
    """
    Compare the patches of the base ``name`` with those of the same subject of the base ``other``.

    :raises KeyError: if there is none of that subject
    """
    theirs = {patch.subject: patch for patch in series.load(bases.load(other)).patches}
    return [compare(patch, theirs[patch.subject]) for patch in series.load(bases.load(name)).patches]


def compare(ours: Patch, theirs: Patch) -> Distance:
    """
    Compare two patches, in all files that ``theirs`` changes.

    A tree made from an sdist lacks some files. A series for such trees does not change them, and one for full
    checkouts does: those are only named.
    """
    found = Distance(ours.subject, only_here=tuple(f for f in ours.files if f not in theirs.files))
    _compare("message", _message(ours), _message(theirs), found)
    for file in theirs.files:
        found.same += _compare(file, changed_lines(ours, file), changed_lines(theirs, file), found)
    return found


def _compare(title: str, ours: list[str], theirs: list[str], found: Distance) -> int:
    """Add to ``found`` what differs, and return how many lines do not."""
    same, lines = 0, []
    for tag, i, i_end, j, j_end in SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes():
        if tag == "equal":
            same += i_end - i
        else:
            lines += [f"< {line}" for line in theirs[i:i_end]] + [f"> {line}" for line in ours[j:j_end]]
    if lines:
        found.differing[title] = lines
    return same


def _message(patch: Patch) -> list[str]:
    trailers = [f"{key}: {value}" for key, values in patch.trailers.items() for value in values]
    return [line for line in [*patch.body.splitlines(), *trailers] if line]


def changed_lines(patch: Patch, file: str) -> list[str]:
    """Return the lines that ``patch`` removes from and adds to ``file``, with ``-`` or ``+`` before them."""
    if file not in patch.files:
        return []
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        git("init", "--quiet", "--template=", cwd=scratch)
        path = Path(scratch, file)
        apply = ("apply", "--reject", f"--include={file}", patch.path.resolve())
        if file in patch.created:
            git(*apply, cwd=scratch)
            return [f"+{line}" for line in path.read_text(encoding="utf-8").splitlines()]
        # In an empty file no hunk finds its place, so git writes all of them, and nothing else, to a file.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        call(*apply, cwd=scratch)
        rejected = Path(f"{path}.rej").read_text(encoding="utf-8").splitlines()
    return [line for line in rejected if line.startswith(("-", "+"))]


if __name__ == "__main__":
    print("\n".join(map(str, distances(*sys.argv[1:3]))), end="")
