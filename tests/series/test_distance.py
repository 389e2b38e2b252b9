# SPDX-License-Identifier: Apache-2.0
"""The same patches on two bases differ in what the bases force, and in nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from distance import changed_lines, compare, distances

from patchsetlib.patches import base as bases
from patchsetlib.patches import check, series
from patchsetlib.shell.git import git

MAIN, RELEASE = "main-c5e70a9", "3.1.3"
RECORDED = Path(__file__).with_name(f"{MAIN}.distance")


@pytest.fixture(scope="module")
def found():
    return distances(MAIN, RELEASE)


@pytest.mark.base(MAIN)
class TestSeries:
    def test_same_patches_in_the_same_order(self):
        subjects = [[p.subject for p in series.load(bases.load(name)).patches] for name in (MAIN, RELEASE)]
        assert subjects[0] == subjects[1]

    def test_what_differs_is_recorded(self, found):
        recorded = RECORDED.read_text(encoding="utf-8").splitlines()
        assert "\n".join(map(str, found)).splitlines() == recorded, (
            f"if the bases force it, record it: see the head of distance.py, > {RECORDED.name}"
        )

    def test_hardly_anything_differs(self, found):
        for distance in found:
            assert max(distance.only_in.values()) <= distance.same * 0.05, str(distance)

    def test_nothing_is_wrong_with_the_files(self):
        """What can be said without a clone; with one: patchset check --source."""
        assert [str(finding) for finding in check.check(bases.load(MAIN))] == []


class TestComparison:
    """The comparison itself, with patches of our own."""

    @pytest.fixture
    def make_patch(self, tmp_path):
        """Return a function that makes a patch of a file that is changed and one that is created."""

        def make(name: str, before: str, after: str, created: str = "one\n") -> series.Patch:
            tree = tmp_path / name
            tree.mkdir()
            git("init", "--quiet", "--template=", cwd=tree)
            (tree / "changed").write_text(before)
            git("add", ".", cwd=tree)
            git("commit", "--quiet", "--message=base", cwd=tree)
            (tree / "changed").write_text(after)
            (tree / "created").write_text(created)
            git("add", ".", cwd=tree)
            git("commit", "--quiet", "--message=Subject\n\nReason.\n\nForwarded: no", cwd=tree)
            git("format-patch", "--quiet", "-1", "--full-index", "--no-signature", cwd=tree)
            return series.parse(tree / "0001-Subject.patch")

        return make

    def test_other_surroundings_are_no_difference(self, make_patch):
        ours = make_patch("ours", "x\n-- old\ny\n", "x\n-- new\ny\n")
        theirs = make_patch("theirs", "1\n2\n3\n4\n5\n-- old\n6\n", "1\n2\n3\n4\n5\n-- new\n6\n")
        found = compare(ours, theirs)

        assert changed_lines(ours, "changed") == ["--- old", "+-- new"]
        assert (found.same, found.differing, found.only_here) == (3, {}, ())

    def test_lines_that_differ_are_found(self, make_patch):
        ours = make_patch("ours", "x\n", "x\nour line\n", "one\n2\n")
        theirs = make_patch("theirs", "x\n", "x\ntheir line\n", "one\ntwo\n")
        found = compare(ours, theirs)

        assert found.same == 1
        assert found.differing == {
            "changed": ["< +their line", "> +our line"],
            "created": ["< +two", "> +2"],
        }
        assert found.only_in == {"<": 2, ">": 2}
