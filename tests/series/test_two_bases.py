# SPDX-License-Identifier: Apache-2.0
"""What several bases have in common is stored once, or changes the source in the same way on each."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict

import pytest

from patchsetlib.patches import base as bases
from patchsetlib.patches import series
from patchsetlib.patches.series import Patch

PAIRS = [
    pytest.param(other, name, marks=[pytest.mark.base(other), pytest.mark.base(name)])
    for name in bases.all_bases()
    if (other := bases.load(name).same_series_as)
]
# Of the changed lines of a patch on both, twice as many as differ at most today.
TOLERATED = 0.1


def patches(name: str) -> dict[str, Patch]:
    return {patch.subject: patch for patch in series.load(bases.load(name))}


def changed_lines(patch: Patch) -> list[str]:
    """Return what a patch removes from and adds to files below ``src/``, without the indentation."""
    lines = []
    for part in patch.path.read_text(encoding="utf-8").split("\ndiff --git ")[1:]:
        head, _, hunks = part.partition("\n@@ ")
        if "/src/" in head.splitlines()[0]:
            # What the first hunk's mark has left of its line starts with a minus, too.
            lines += re.findall(r"^[-+].*$", hunks.partition("\n")[2], re.MULTILINE)
    return [re.sub(r"^([-+])\s+", r"\1", line) for line in lines]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_same_changes_in_the_same_order(ours, theirs):
    here, there = patches(ours), patches(theirs)
    assert list(here) == list(there)
    for subject in here:
        changes = [changed_lines(patch) for patch in (here[subject], there[subject])]
        found = [line for line in difflib.unified_diff(*changes, n=0) if not line.startswith("@@")]
        assert all(changes)
        assert len(found) <= TOLERATED * sum(map(len, changes)), "\n".join([subject, *found])


def test_what_is_the_same_is_in_common():
    """Of patches that change only files which their series creates, as only those can be."""
    places = defaultdict(set)
    for name in bases.all_bases():
        found = series.load(bases.load(name))
        created = {file for patch in found for file in patch.created}
        for patch in found:
            if created.issuperset(patch.files):
                places[patch.path.read_bytes()].add(patch.path.resolve())
    assert [same for same in places.values() if len(same) > 1] == []
