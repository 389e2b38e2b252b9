# SPDX-License-Identifier: Apache-2.0
"""Every kind of finding is provoked on its own, and nothing else is found then."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sampleset import BODY, edit, tree_of, user_git

from patchsetlib.patches import check
from patchsetlib.patches.series import Patch

CODE = "airflow-core/src/airflow/fifth.py"
TESTS = "airflow-core/tests/unit/test_fifth.py"
FIRST = "0001-demo-Take-the-third-step-right.patch"
SECOND = "0002-Take-the-seventh-step-right.patch"
THIRD = "0003-Say-what-a-step-is.patch"
EXPORT = "scripts/patchset export 1.0 renumbers and refreshes"


def findings(repository) -> list[str]:
    """Return what check finds, without the directory that all have in common."""
    done = repository.run("--quiet", "check")
    assert done.returncode == (1 if done.stdout else 0), done.stderr
    assert done.stderr == ""
    return [line.removeprefix("airflow-core/1.0/") for line in done.stdout.splitlines()]


def test_nothing_to_find(repository):
    user_git("init", "--quiet", cwd=repository.root)
    before = tree_of(repository.base), tree_of(repository.root / ".git")
    assert findings(repository) == []
    assert (tree_of(repository.base), tree_of(repository.root / ".git")) == before
    assert not repository.source.exists()


# The files of a base


def test_unlisted(repository):
    edit(repository.base / "series", (f"{THIRD}\n", ""))
    assert f"{THIRD}: is not listed in series" in findings(repository)


def test_missing(repository):
    (repository.base / THIRD).unlink()
    (line,) = findings(repository)
    assert line.endswith(f"{THIRD} cannot be read: No such file or directory; restore it with git")


def test_listed_twice(repository):
    edit(repository.base / "series", (f"{THIRD}\n", f"{THIRD}\n{THIRD}\n"))
    assert findings(repository) == [f"series: lists {THIRD} 2 times"]


def test_same_subject(repository):
    copy = THIRD.replace("0003", "0004")
    shutil.copy(repository.base / THIRD, repository.base / copy)
    edit(repository.base / "series", (f"{THIRD}\n", f"{THIRD}\n{copy}\n"))
    assert "series: 2 patches have the subject 'Say what a step is'" in findings(repository)


def test_no_series(repository):
    (repository.base / "series").unlink()
    (line,) = findings(repository)
    assert line.startswith("series: airflow-core/1.0/series cannot be read")


def test_cover_letter(repository):
    edit(repository.base / "cover-letter.md", ("- Say what a step is\n", ""))
    assert findings(repository) == ["cover-letter.md: does not name the patch 'Say what a step is'"]
    (repository.base / "cover-letter.md").unlink()
    (found,) = findings(repository)
    assert found.startswith("cover-letter.md: is missing; say there why")


def test_notes(repository):
    notes = repository.base / "notes"
    notes.mkdir()
    (notes / "Say-what-a-step-is.md").write_text("A table.\n")
    assert findings(repository) == []
    (notes / "Say-what-it-is.md").write_text("")
    (found,) = findings(repository)
    assert found.startswith("notes/Say-what-it-is.md: belongs to no patch")


def test_all_bases(repository):
    other = repository.base.with_name("2.0")
    shutil.copytree(repository.base, other)
    (other / "cover-letter.md").unlink()
    done = repository.run("--quiet", "check")
    assert done.returncode == 1
    assert done.stdout.startswith("airflow-core/2.0/cover-letter.md: is missing")
    repository.ok("check", "1.0")


# What can be read, applied, and written again


def test_not_a_patch(repository):
    (repository.base / THIRD).write_text("nonsense\n")
    (line,) = findings(repository)
    assert line.startswith(f"{THIRD}: airflow-core/1.0/{THIRD} is not a patch")


def test_corrupt_patch(repository):
    edit(repository.base / FIRST, ("-    return 3\n", ""))
    (line,) = findings(repository)
    assert re.match(rf"{FIRST}: .* is not a patch: corrupt patch at .*line \d+", line)


def test_does_not_apply(repository):
    edit(repository.base / FIRST, ("-    return 3\n", "-    return 8\n"))
    (line,) = findings(repository)
    assert f"{FIRST}: {FIRST} does not apply: airflow-core/src/airflow/first.py:" in line


def test_file_that_no_sdist_holds(repository):
    """It exists in a full checkout, which is not what the release's users have."""
    edit(repository.base / FIRST, ("airflow/first.py", "airflow/other.py"))
    missing, does_not_apply = findings(repository)
    assert (
        missing == f"{FIRST}: changes airflow-core/src/airflow/other.py, which no sdist of this release holds"
    )
    assert "does not exist in index" in does_not_apply


def test_not_refreshed(repository):
    edit(repository.base / FIRST, ("@@ -11,7 +11,7 @@", "@@ -6,7 +6,7 @@"))
    assert findings(repository) == [f"{FIRST}: is not what export writes; {EXPORT}"]


def test_wrong_name(repository):
    name = "0005-Say-what-a-step-is.patch"
    (repository.base / THIRD).rename(repository.base / name)
    edit(repository.base / "series", (THIRD, name))
    assert f"{name}: should be named {THIRD}; {EXPORT}" in findings(repository)


def test_commits_file(repository):
    path = repository.base / "commits"
    path.write_text("0" * 40 + path.read_text()[40:])
    expected = f"commits: does not list the commits that the series gives; {EXPORT}"
    assert findings(repository) == [expected]
    path.unlink()
    assert findings(repository) == [expected]


def test_whitespace(repository):
    edit(repository.base / FIRST, ("+    return 33\n", "+    return 33 \n"))
    assert any(line.endswith("first.py:14: trailing whitespace") for line in findings(repository))


def test_no_sdist_and_no_network(repository):
    shutil.rmtree(repository.root / "work" / "downloads")
    assert "cannot reach the package index" in repository.fails("check")


def test_base_that_cannot_be_read(repository):
    (repository.base / "base.toml").write_text("version = 1.0.0\n")
    assert "base.toml: " in repository.fails("check")


# Message and content


KEPT = {"Exit-condition": ("some day",), "Forwarded": ("no",)}
GOOD = Patch(
    path=Path("x.patch"),
    name="x.patch",
    subject="Take the fifth step right",
    message="\n" * 40,
    body=BODY,
    trailers=KEPT,
    files=(CODE, TESTS),
    created=frozenset([TESTS]),
)
NO_TESTS = f"changes {CODE} without tests; add them or the trailer"


def problems(parts) -> list[str]:
    patch = replace(GOOD, **parts)
    return [finding.problem for finding in (*check.message(patch), *check.content(patch, ["airflow-core"]))]


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"subject": "Take " + "x" * 65}, "the subject has 70 characters, 69 at most"),
        ({"subject": "Take the step."}, "the subject ends with a period"),
        ({"subject": "fix: take the step"}, "the subject does not start with a capital letter"),
        ({"body": "Needed. No risk, rather than some."}, "no reason given: 34 characters"),
        ({"message": "\n" * 41}, "the message has 41 lines, 40 at most"),
        ({"body": BODY.replace("Risk", "Beware")}, "the message names no risk"),
        ({"trailers": KEPT | {"Exit-condition": ("",)}}, "no exit condition"),
        ({"trailers": KEPT | {"Forwarded": ("maybe",)}}, "trailer 'Forwarded: maybe' is not no, not-needed"),
        ({"trailers": KEPT | {"Signed-off-by": ("X",)}}, "unknown trailer 'Signed-off-by:'"),
        ({"files": (CODE,)}, NO_TESTS),
        ({"files": (CODE,), "trailers": KEPT | {"Tests": ("none",)}}, NO_TESTS),
        ({"files": ()}, "changes nothing"),
        (
            {"created": frozenset(["airflow-core/PKG-INFO"])},
            "creates airflow-core/PKG-INFO, which is neither source, nor test, nor document",
        ),
    ],
)
def test_bad_patch(parts, problem):
    (found,) = problems(parts)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"trailers": KEPT | {"Forwarded": ("https://example.invalid/pull/1",), "Bug": ("x", "y")}},
        {"trailers": KEPT | {"Forwarded": ("not-needed",), "Applied-Upstream": ("3.2.0",)}},
        {"files": (CODE,), "trailers": KEPT | {"Tests": ("none (only a comment)",)}},
        {"created": frozenset(["airflow-core/newsfragments/1.bugfix.rst"])},
        {"subject": "[AIP-1] Take the step"},
        {"subject": "`gc.freeze` before the fork"},
    ],
)
def test_good_patch(parts):
    assert problems(parts) == []


def test_message_and_content_are_part_of_check(repository):
    edit(repository.base / FIRST, ("Forwarded: no\n", ""), ("tests/unit", "unit"))
    found = findings(repository)
    assert any("trailer 'Forwarded: ' is not" in line for line in found)
    assert any("without tests" in line for line in found)
