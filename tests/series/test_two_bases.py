# SPDX-License-Identifier: Apache-2.0
"""The same patches on two bases change the source in the same way, but for what the bases force."""

from __future__ import annotations

import difflib
import re

import pytest

from patchsetlib.patches import base as bases
from patchsetlib.patches import series
from patchsetlib.patches.series import Patch

RELEASE, MAIN = "3.1.3", "main-c5e70a9"
# Of the changed lines of a patch on both, twice as many as differ at most today.
TOLERATED = 0.1

pytestmark = [pytest.mark.base(RELEASE), pytest.mark.base(MAIN)]


def patches(name: str) -> dict[str, Patch]:
    return {patch.subject: patch for patch in series.load(bases.load(name)).patches}


def changed_lines(patch: Patch) -> list[str]:
    """Return what a patch removes from and adds to files below ``src/``, without the indentation."""
    lines = []
    for part in patch.path.read_text(encoding="utf-8").split("\ndiff --git ")[1:]:
        head, _, hunks = part.partition("\n@@ ")
        if "/src/" in head.splitlines()[0]:
            # What the first hunk's mark has left of its line starts with a minus, too.
            lines += re.findall(r"^[-+].*$", hunks.partition("\n")[2], re.MULTILINE)
    return [re.sub(r"^([-+])\s+", r"\1", line) for line in lines]


def test_same_patches_in_the_same_order():
    assert list(patches(RELEASE)) == list(patches(MAIN))


@pytest.mark.parametrize("subject", patches(MAIN))
def test_same_changes(subject):
    ours, theirs = (changed_lines(patches(name)[subject]) for name in (RELEASE, MAIN))
    compared = difflib.ndiff(ours, theirs)
    found = [line for line in compared if line.startswith(("- ", "+ "))]
    assert ours
    assert len(found) <= TOLERATED * (len(ours) + len(theirs)), "\n".join(found)
