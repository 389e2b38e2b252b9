# SPDX-License-Identifier: Apache-2.0
"""Every kind of finding is provoked on its own, and nothing else is found then."""

from __future__ import annotations

import re
import shutil
import time

import pytest
from sampleset import BODY, TRAILERS, tree_of, user_git

from patchsetlib.patches import check, series
from patchsetlib.patches.check import AUTHOR

CODE = "airflow-core/src/airflow/fifth.py"
TESTS = "airflow-core/tests/unit/test_fifth.py"
FIRST = "0001-demo-Take-the-third-step-right.patch"
SECOND = "0002-Take-the-seventh-step-right-and-say-so-in-the-guide.patch"
THIRD = "0003-Say-in-the-guide-what-a-step-is.patch"


def findings(repository) -> list[str]:
    """Return what check finds, without the directory that all have in common."""
    done = repository.run("--quiet", "check")
    assert done.returncode == (1 if done.stdout else 0), done.stderr
    assert done.stderr == ""
    return [line.removeprefix("airflow-core/1.0/") for line in done.stdout.splitlines()]


def edit(repository, name: str, *replacements: tuple[str, str]) -> None:
    path = repository.base / name
    text = path.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def test_nothing_to_find(repository):
    started = time.monotonic()
    assert findings(repository) == []
    assert time.monotonic() - started < 20


def test_writes_nothing(repository):
    before = tree_of(repository.base)
    repository.ok("check")
    assert tree_of(repository.base) == before
    assert not (repository.root / "work" / "1.0").exists()


def test_unlisted(repository):
    edit(repository, "series", (f"{THIRD}\n", ""))
    assert f"{THIRD}: is not listed in series" in findings(repository)


def test_missing(repository):
    (repository.base / THIRD).unlink()
    assert findings(repository) == [f"series: lists {THIRD}, which does not exist"]


def test_listed_twice(repository):
    edit(repository, "series", (f"{THIRD}\n", f"{THIRD}\n{THIRD}\n"))
    assert findings(repository) == [f"series: lists {THIRD} 2 times"]


def test_same_subject(repository):
    copy = THIRD.replace("0003", "0004")
    shutil.copy(repository.base / THIRD, repository.base / copy)
    edit(repository, "series", (f"{THIRD}\n", f"{THIRD}\n{copy}\n"))
    assert "series: 2 patches have the subject 'Say in the guide what a step is'" in findings(repository)


def test_no_series(repository):
    (repository.base / "series").unlink()
    (line,) = findings(repository)
    assert line.startswith("series: airflow-core/1.0/series cannot be read")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("third.patch", "series: third.patch is not named NNNN-short-subject.patch"),
        ("0003-say.txt", "series: 0003-say.txt is not named NNNN-short-subject.patch"),
        (
            "0005-Say-in-the-guide-what-a-step-is.patch",
            "series: 0005-Say-in-the-guide-what-a-step-is.patch is number 3; "
            "scripts/patchset export 1.0 renumbers and refreshes",
        ),
        (
            "0003-Another-name.patch",
            "0003-Another-name.patch: should be named 0003-Say-in-the-guide-what-a-step-is.patch; "
            "scripts/patchset export 1.0 renumbers and refreshes",
        ),
    ],
)
def test_wrong_name(repository, name, problem):
    (repository.base / THIRD).rename(repository.base / name)
    edit(repository, "series", (THIRD, name))
    assert problem in findings(repository)


def test_wrong_order_of_numbers(repository):
    edit(repository, "series", (f"{SECOND}\n{THIRD}\n", f"{THIRD}\n{SECOND}\n"))
    found = findings(repository)
    assert any(line.startswith(f"series: {THIRD} is number 2") for line in found)
    assert any(line.startswith(f"series: {SECOND} is number 3") for line in found)


def test_not_a_patch(repository):
    (repository.base / THIRD).write_text("nonsense\n")
    (line,) = findings(repository)
    assert line.startswith(f"{THIRD}: airflow-core/1.0/{THIRD} is not a patch")


def test_corrupt_patch(repository):
    edit(repository, FIRST, ("-    return 3\n", ""))
    (line,) = findings(repository)
    assert re.match(rf"{FIRST}: .* is not a patch: corrupt patch at .*line \d+", line)


def test_does_not_apply(repository):
    edit(repository, FIRST, ("-    return 3\n", "-    return 4\n"))
    (line,) = findings(repository)
    assert f"{FIRST}: {FIRST} does not apply: airflow-core/src/airflow/first.py:" in line


def test_context_that_needs_fuzz(repository):
    edit(repository, FIRST, (" def step_3():\n", " def step_three():\n"))
    assert "does not apply" in findings(repository)[0]


@pytest.mark.parametrize("name", [FIRST, SECOND], ids=["whole", "with a part left out"])
def test_offset(repository, name):
    text = (repository.base / name).read_text(encoding="utf-8")
    start = re.search(r"@@ -(\d+),7 \+\1,7 @@", text)
    line = int(start[1]) - 5
    edit(repository, name, (start[0], f"@@ -{line},7 +{line},7 @@"))
    (found,) = findings(repository)
    assert found.startswith(f"{name}: hunk 1 of airflow-core/src/airflow/")
    assert "applies at an offset 5 lines; scripts/patchset export 1.0 renumbers and refreshes" in found


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (FIRST, "@@ def step_2():", "@@ def step_two():"),
        (FIRST, "index 0000000000000000000000000000000000000000..", "index 0000000.."),
        (FIRST, " | 2 +-\n", " |  2 +-\n"),
        (
            FIRST,
            "From 0000000000000000000000000000000000000000",
            "From 1234567812345678123456781234567812345678",
        ),
        (FIRST, "Subject: [PATCH] ", "Subject: [PATCH 1/3] "),
        (SECOND, "Subject: [PATCH] ", "Subject: [PATCH 2/3] "),
        (SECOND, "@@ def step_6():", "@@ def step_six():"),
    ],
)
def test_not_refreshed(repository, name, old, new):
    edit(repository, name, (old, new))
    (found,) = findings(repository)
    assert found.startswith(f"{name}: is not what export writes: ")
    assert found.endswith("; scripts/patchset export 1.0 renumbers and refreshes")


def test_trailing_text(repository):
    path = repository.base / FIRST
    path.write_text(path.read_text(encoding="utf-8") + "-- \n2.39.5\n", encoding="utf-8")
    (found,) = findings(repository)
    assert found.startswith(f"{FIRST}: is not what export writes: ")


def test_later_patch_not_refreshed_after_an_earlier_one(repository):
    """The usual case: a line more in an early patch moves the hunks of the later ones."""
    repository.ok(
        "checkout", "1.0", "--source", repository.upstream, "--dir", repository.root.parent / "full"
    )
    tree = repository.root.parent / "full"
    path = "airflow-core/src/airflow/first.py"
    text = (tree / path).read_text()
    changed = {path: text.replace("return 9\n", "return 99\n")}
    repository.commit(tree, "Take the ninth step right", changed, trailers=(
        "Exit-condition: never\nForwarded: no\nTests: none (in the first patch)\n"))  # fmt: skip
    repository.ok("export", "1.0", "--dir", tree)
    assert findings(repository) == []
    edit(
        repository,
        FIRST,
        ("@@ -11,7 +11,7 @@", "@@ -11,7 +11,8 @@"),
        ("+    return 33\n", "+    x = 1\n+    return 33\n"),
    )
    found = findings(repository)
    assert any(
        "0004-Take-the-ninth-step-right.patch: hunk 1" in line and "offset 1 line" in line for line in found
    )


def test_commits_file(repository):
    path = repository.base / "commits"
    text = path.read_text()
    path.write_text("0" + text[1:] if text[0] != "0" else "1" + text[1:])
    expected = "commits: does not list the commits that the series gives; scripts/patchset export 1.0"
    assert findings(repository)[0].startswith(expected)
    path.unlink()
    assert findings(repository)[0].startswith(expected)


@pytest.fixture
def patch(repository, tmp_path):
    """Return a way to read a patch with parts of message or content other than in a good one."""

    def make(subject="Take the fifth step right", body=BODY, trailers=TRAILERS, files=None, author=AUTHOR):
        work = tmp_path / "one"
        work.mkdir()
        user_git("init", "--quiet", cwd=work)
        user_git("commit", "--quiet", "--allow-empty", "--message", "Base", cwd=work)
        files = {CODE: "x = 5\n", TESTS: "x = 5\n"} if files is None else files
        repository.commit(work, subject, files, body=body, trailers=trailers)
        user_git("commit", "--quiet", "--amend", "--no-edit", "--author", author, cwd=work)
        user_git("format-patch", "--quiet", "-1", "-o", tmp_path, cwd=work)
        return series.parse(next(tmp_path.glob("*.patch")))

    return make


def problems(patch) -> list[str]:
    return [finding.problem for finding in (*check.message(patch), *check.content(patch, "airflow-core"))]


def test_good_patch(patch):
    assert problems(patch()) == []


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"subject": "Take " + "x" * 65}, "the subject has 70 characters, 69 at most"),
        ({"subject": "Take the step."}, "the subject ends with a period"),
        ({"subject": "fix: take the step"}, "the subject starts with a conventional prefix"),
        ({"subject": "Feat(core)!: take the step"}, "the subject starts with a conventional prefix"),
        ({"subject": "take the step"}, "the subject does not start with a capital letter"),
        ({"body": "Needed. No risk, rather than some.\n"}, "no reason given: the message has 34 characters"),
        ({"body": BODY.replace("Risk", "Beware")}, "the message names no risk"),
        ({"body": BODY.replace("discarded", "there")}, "the message does not say what was discarded"),
        ({"trailers": "Forwarded: no\n"}, "no exit condition"),
        ({"trailers": "Exit-condition: \nForwarded: no\n"}, "no exit condition"),
        ({"trailers": "Exit-condition: some day\n"}, "no trailer 'Forwarded: no'"),
        (
            {"trailers": "Exit-condition: some day\nForwarded: maybe\n"},
            "trailer 'Forwarded: maybe' is not no, not-needed or a URL",
        ),
        (
            {"trailers": "Exit-condition: some day\nForwarded: no\nSigned-off-by: X <x@invalid>\n"},
            "unknown trailer 'Signed-off-by:'",
        ),
        ({"author": "Jane <jane@invalid>"}, "the author is Jane <jane@invalid>, not Airflow LocalExecutor"),
        ({"files": {CODE: "x = 5\n"}}, f"changes {CODE} without tests; add them or the trailer"),
        (
            {"files": {CODE: "x = 5\n"}, "trailers": f"{TRAILERS}Tests: none\n"},
            f"changes {CODE} without tests; add them or the trailer",
        ),
        ({"files": {"a": "x = 1 \n"}}, "line 24: trailing whitespace"),
        ({"files": {"a": "x = 1\n \t y = 2\n"}}, "line 25: space before tab in indent"),
    ],
)
def test_bad_patch(patch, parts, problem):
    (found,) = problems(patch(**parts))
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "parts",
    [
        {"trailers": "Exit-condition: some day\nForwarded: not-needed\n"},
        {"trailers": "Exit-condition: some day\nForwarded: https://example.invalid/pull/1\n"},
        {
            "trailers": "Bug: https://example.invalid/1\nDepends-on: Take the third step\n"
            "Applied-Upstream: 3.2.0\n"
            "Forwarded: no\nExit-condition: upstream has it,\n which may take a while\n"
        },
        {"files": {CODE: "x = 5\n"}, "trailers": f"{TRAILERS}Tests: none (only a comment)\n"},
        {"files": {"airflow-core/newsfragments/1.bugfix.rst": "Better.\n"}},
        {"subject": "[AIP-1] Take the step"},
        {"subject": "`gc.freeze` before the fork"},
    ],
)
def test_good_variants(patch, parts):
    assert problems(patch(**parts)) == []


def test_message_and_content_are_part_of_check(repository):
    edit(repository, FIRST, ("Forwarded: no\n", ""), ("+    return 33\n", "+    return 33 \n"))
    found = findings(repository)
    assert any(re.fullmatch(rf"{FIRST}: line \d+: trailing whitespace", line) for line in found)
    assert any(line.startswith(f"{FIRST}: no trailer 'Forwarded: no'") for line in found)


def test_blank_line_at_end(repository):
    edit(repository, FIRST, ("@@ -0,0 +1,2 @@", "@@ -0,0 +1,3 @@"), ("+    pass\n", "+    pass\n+\n"))
    assert any(
        re.fullmatch(rf"{FIRST}: line \d+: new blank line at EOF", line) for line in findings(repository)
    )


def test_whitespace_in_a_part_left_out(repository):
    edit(repository, SECOND, ("since step 7.\n", "since step 7. \n"))
    assert any(re.search(r"line \d+: trailing whitespace$", line) for line in findings(repository))


def test_all_bases(repository):
    other = repository.base.with_name("2.0")
    shutil.copytree(repository.base, other)
    (other / THIRD).unlink()
    done = repository.run("--quiet", "check")
    assert done.returncode == 1
    assert done.stdout == f"airflow-core/2.0/series: lists {THIRD}, which does not exist\n"
    repository.ok("check", "1.0")


def test_left_out_part_is_checked_with_a_clone(repository):
    """Only a full checkout has the guide that the third patch changes."""
    edit(repository, THIRD, ("-How it works since step 7.", "-How it works since step 8."))
    assert findings(repository) == []
    done = repository.run("--quiet", "check", "1.0", "--source", repository.upstream)
    assert done.returncode == 1
    assert f"{THIRD} does not apply: airflow-core/docs/guide.rst" in done.stdout


def test_no_sdist_and_no_network(repository):
    shutil.rmtree(repository.root / "work" / "downloads")
    line = repository.fails("check")
    assert "demo-core" in line or "network" in line


def test_base_that_cannot_be_read(repository):
    (repository.base / "base.toml").write_text("version = 1.0.0\n")
    assert "base.toml" in repository.fails("check")


def test_user_repository_is_left_alone(repository):
    """The patch set itself is a git repository; nothing of it is touched."""
    user_git("init", "--quiet", cwd=repository.root)
    before = tree_of(repository.root / ".git")
    assert findings(repository) == []
    assert tree_of(repository.root / ".git") == before


# Cover letter


def test_no_cover_letter(repository):
    (repository.base / "cover-letter.md").unlink()
    (found,) = findings(repository)
    assert found.startswith("cover-letter.md: is missing; say there why")


def test_patch_that_the_cover_letter_does_not_name(repository):
    edit(repository, "cover-letter.md", ("- Say in the guide what a step is\n", ""))
    assert findings(repository) == [
        "cover-letter.md: does not name the patch 'Say in the guide what a step is'"
    ]


def test_cover_letter_in_another_order(repository):
    letter = repository.base / "cover-letter.md"
    letter.write_text("\n".join(reversed(letter.read_text().splitlines())))
    assert findings(repository) == ["cover-letter.md: names the patches in another order than series"]


def test_file_that_a_tool_has_left(patch):
    (found,) = problems(patch(files={"airflow-core/PKG-INFO": "Name: x\n"}))
    assert found == "creates airflow-core/PKG-INFO, which is neither source, nor test, nor document"
