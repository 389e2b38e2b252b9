# SPDX-License-Identifier: Apache-2.0
"""``test BASE --source CLONE``: what differs between two real runs of pytest is told as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sampleset import MODULE, user_git

import patchsetlib.patches.base
from patchsetlib.patches import worktrees
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.upstream import environment as upstreamenv
from patchsetlib.upstream import unittests as upstreamtests
from patchsetlib.upstream.unittests import Result, compare, read_report

UNIT = "airflow-core/tests/unit"
STEPS = f"{UNIT}/test_steps.py"
# The series of the sample turns what step 3 returns from 3 into 33.
TESTS = """\
import os
from pathlib import Path

import pytest
from airflow.first import step_3


def test_three():
    assert step_3() == 3, "not three"


def test_thirty_three():
    assert step_3() == 33


def test_never():
    assert step_3() == 0


def test_flaky():
    seen = Path(os.environ["AIRFLOW_HOME"], "seen")
    if step_3() == 33 and not seen.exists():
        seen.touch()
        pytest.fail("the first time")


@pytest.mark.skipif(step_3() == 33, reason="33")
def test_skipped():
    pass


class TestMany:
    @pytest.mark.parametrize("value", [*range(step_3() - 1, 3), "a.b::c"])
    def test_each(self, value):
        pass
"""
# Options that upstream's plugin has and others have not.
CONFTEST = """\
def pytest_addoption(parser):
    parser.addoption("--with-db-init", action="store_true")
    for phase in ("setup", "execution", "teardown"):
        parser.addoption(f"--{phase}-timeout")
"""


def results(**outcomes: str) -> dict[str, Result]:
    return {f"f.py::{test}": Result(outcome, "why") for test, outcome in outcomes.items()}


def compared(base, patched, again_base=None, again_patched=None, together=None, changed=()):
    """Compare with given results of the runs that follow, and return it with what was asked to run again."""
    asked = []

    def alone(tests):
        asked.append(tests)
        return results(**again_base or {}), results(**again_patched or {})

    def modules(names):
        asked.append(names)
        return results(**together or {})

    return compare(results(**base), results(**patched), alone, modules, lambda file: list(changed)), asked


def test_nothing_differs():
    same = {"a": "passed", "b": "skipped"}
    comparison, asked = compared(same, same)
    assert comparison.good
    assert asked == []
    assert not any(vars(comparison).values())


@pytest.mark.parametrize(
    ("base", "again_base", "again_patched", "together", "where"),
    [
        pytest.param("passed", "passed", "failed", None, "newly_failing", id="fails always"),
        pytest.param("passed", "failed", "failed", None, "newly_failing", id="cannot run alone"),
        pytest.param("skipped", "skipped", "failed", None, "newly_failing", id="skipped before"),
        pytest.param(None, None, "failed", None, "newly_failing", id="new test"),
        pytest.param("passed", "passed", "skipped", None, "newly_failing", id="skipped when alone"),
        pytest.param("passed", "passed", None, None, "newly_failing", id="not found when alone"),
        pytest.param("passed", "passed", "passed", "passed", "flaky", id="passes twice"),
        pytest.param("passed", "passed", "passed", "failed", "newly_failing", id="fails in company"),
        pytest.param("passed", "passed", "passed", None, "newly_failing", id="not found in company"),
        pytest.param("failed", "failed", "failed", None, "failing_on_both", id="fails on both"),
        pytest.param("failed", "passed", "failed", None, "newly_failing", id="flaky on the base only"),
        pytest.param("failed", "passed", "passed", None, "failing_on_both", id="in company on both"),
    ],
)
def test_failing_test(base, again_base, again_patched, together, where):
    def given(outcome):
        return {"a": outcome} if outcome else {}

    comparison, asked = compared(
        given(base), {"a": "failed"}, given(again_base), given(again_patched), given(together)
    )
    lists = {name: tests for name, tests in vars(comparison).items() if tests}
    assert lists == {where: ["f.py::a"]}
    assert comparison.good == (where != "newly_failing")
    assert asked[0] == ["f.py::a"]


def test_too_many_failures_are_not_run_again():
    failed = {f"t{n}": "failed" for n in range(upstreamtests.AGAIN + 1)}
    comparison, asked = compared(dict.fromkeys(failed, "passed"), failed)
    assert asked == []
    assert len(comparison.newly_failing) == len(failed)


def test_what_does_not_fail():
    comparison, _ = compared(
        {"a": "failed", "b": "passed", "c": "failed"},
        {"a": "passed", "b": "skipped", "c": "skipped", "d": "passed", "e": "skipped"},
    )
    assert comparison.good
    assert comparison.newly_passing == ["f.py::a"]
    assert comparison.newly_skipped == ["f.py::b", "f.py::c"]
    assert comparison.new == ["f.py::d", "f.py::e"]


def test_vanished_test_needs_a_patch_that_changes_its_file():
    explained, _ = compared({"a": "passed"}, {}, changed=["Drop it"])
    assert explained.good
    assert explained.gone == {"f.py::a": ["Drop it"]}
    vanished, _ = compared({"a": "passed"}, {})
    assert not vanished.good
    assert vanished.unexplained == ["f.py::a"]


def test_report_of_pytest_gives_node_ids(tmp_path):
    module = tmp_path / "a-b" / "tests" / "test_m.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "import pytest\n\n\n"
        "class TestA:\n    class TestB:\n"
        "        @pytest.mark.parametrize('x', ['p::q[.]', 'é', '<'])\n"
        "        def test_param(self, x):\n            assert x != '<', 'first\\nsecond'\n\n\n"
        "@pytest.fixture\ndef bad():\n    yield\n    raise OSError('teardown')\n\n\n"
        "def test_teardown(bad):\n    pass\n\n\n"
        "def test_both(bad):\n    raise OSError('call')\n\n\n"
        "@pytest.mark.xfail\ndef test_expected():\n    assert False\n\n\n"
        "def test_skip():\n    pytest.skip()\n"
    )
    (module.parent / "test_broken.py").write_text("import no_such_module\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    report = tmp_path / "report.xml"
    options = ("-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--junit-xml={report}")
    command = [sys.executable, "-I", "-m", "pytest", *options]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 1
    listed = subprocess.run(
        [*command, "--collect-only"], cwd=tmp_path, capture_output=True, text=True
    ).stdout.splitlines()
    subprocess.run(command, cwd=tmp_path, capture_output=True)

    found = read_report(report, tmp_path)

    assert {test: result.outcome for test, result in found.items()} == {
        **{line: "passed" for line in listed if "::test_param" in line},
        **{line: "failed" for line in listed if "[<]" in line},
        "a-b/tests/test_m.py::test_teardown": "failed",
        "a-b/tests/test_m.py::test_both": "failed",
        "a-b/tests/test_m.py::test_expected": "skipped",
        "a-b/tests/test_m.py::test_skip": "skipped",
        "a-b/tests/test_broken.py": "failed",
    }
    assert found[next(line for line in listed if "[<]" in line)].message.startswith("AssertionError: first")
    assert found["a-b/tests/test_m.py::test_both"].message == "OSError: call"


@pytest.fixture
def sample(repository, tmp_path, monkeypatch):
    """The sample patch set, its clone one commit further, and an "environment" that needs no installing."""
    commit_tests(repository, TESTS)
    monkeypatch.setattr(patchsetlib.patches.base, "ROOT", repository.root)
    monkeypatch.setenv("PATCHSET_WORK", str(repository.root / "work"))
    python = tmp_path / "python-3.0" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = upstreamenv.Environment(python.parent.parent, ("airflow-core/src",))

    def add_settings(tree, environment, log):
        (tree / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
        (tree / "airflow-core" / "tests" / "conftest.py").write_text(CONFTEST)

    monkeypatch.setattr(upstreamenv, "prepare", lambda *args: environment)
    monkeypatch.setattr(upstreamenv, "add_generated", add_settings)
    return repository


def commit_tests(repository, text: str) -> None:
    (repository.upstream / STEPS).write_text(text)
    user_git("add", "--all", cwd=repository.upstream)
    user_git("commit", "--quiet", "--message", "Test the steps", cwd=repository.upstream)


def state(clone: Path) -> list[str]:
    """Return what a user would see of a clone."""
    return [
        user_git(*command, cwd=clone)
        for command in (["status", "--porcelain"], ["for-each-ref"], ["worktree", "list"], ["stash", "list"])
    ]


def run(repository, paths=(STEPS,), expression=None):
    base = patchsetlib.patches.base.load("1.0")
    return upstreamtests.run(base, repository.upstream, "HEAD", None, list(paths), expression)


def test_real_runs(sample):
    before = state(sample.upstream)
    compared, text, raw = run(sample)

    assert not compared.good
    assert compared.newly_failing == [f"{STEPS}::test_three"]
    assert compared.newly_passing == [f"{STEPS}::test_thirty_three"]
    assert compared.failing_on_both == [f"{STEPS}::test_never"]
    assert compared.flaky == [f"{STEPS}::test_flaky"]
    assert compared.newly_skipped == [f"{STEPS}::test_skipped"]
    assert compared.gone == {f"{STEPS}::TestMany::test_each[2]": []}
    assert compared.new == []
    assert state(sample.upstream) == before
    assert list((sample.root / "work" / "upstream" / "trees").iterdir()) == []
    lines = text.splitlines()
    assert lines[2:5] == [
        "passed          5        2",
        "failed          2        3",
        "skipped         0        1",
    ]
    assert "newly failing: 1" in lines
    assert f"  {STEPS}::test_three: AssertionError: not three" in lines
    assert f"  {STEPS}::TestMany::test_each[2]: no patch changes its file" in lines
    data = json.loads(raw.read_text())
    assert data["tests"][f"{STEPS}::test_three"] == {"base": "passed", "patched": "failed"}
    assert data["counts"]["patched"] == {"passed": 2, "failed": 3, "skipped": 1}
    assert data["flaky"] == compared.flaky
    assert len(data["patches"]) == 3


def test_series_that_breaks_nothing(sample):
    compared, text, _ = run(sample, [UNIT], "not three and not flaky and not Many and not never")
    assert compared.good
    # Those of the patches.
    assert compared.new == [f"{UNIT}/test_seventh.py::test_seventh", f"{UNIT}/test_third.py::test_third"]
    assert "new, and not failing: 2" in text


def test_gone_with_the_patch_that_changes_the_file(sample):
    tree = sample.root.parent / "full"
    sample.ok("checkout", "1.0", "--source", sample.upstream, "--dir", tree)
    sample.commit(tree, "Test other things first", {f"{UNIT}/test_first.py": "def test_other():\n    pass\n"})
    sample.ok("export", "1.0", "--dir", tree)
    compared, text, _ = run(sample, [f"{UNIT}/test_first.py"])
    assert compared.good
    assert compared.gone == {f"{UNIT}/test_first.py::test_first": ["Test other things first"]}
    assert f"  {UNIT}/test_first.py::test_first: changed by 'Test other things first'" in text.splitlines()


def test_chosen_by_default(sample, tmp_path):
    trees = [tmp_path / "base", tmp_path / "patched"]
    clone = sample.upstream
    start = user_git("rev-parse", "HEAD", cwd=clone)
    for tree in trees:
        user_git("worktree", "add", "--detach", tree, cwd=clone)
    inside = f"{upstreamtests.PATHS[0]}/test_a.py"
    files = dict.fromkeys((inside, f"{UNIT}/other/test_b.py", f"{UNIT}/other/helper.py"), "")
    sample.commit(trees[1], "Add tests", files)
    tip = user_git("rev-parse", "HEAD", cwd=trees[1])

    chosen = upstreamtests._chosen(*trees, start, tip, [])

    assert chosen == [*upstreamtests.PATHS, f"{UNIT}/other/test_b.py"]


@pytest.mark.parametrize(
    "body",
    ["import os\nos._exit(3)", "import os\nos.kill(os.getpid(), 9)", "import pytest\npytest.exit('', 2)"],
)
def test_pytest_that_does_not_get_to_its_end(sample, body):
    commit_tests(sample, f"def test_end():\n    {body.replace(chr(10), chr(10) + '    ')}\n")
    with pytest.raises(PatchsetError, match=r"pytest ended with exit code -?\d on base, before") as e:
        run(sample)
    assert Path(str(e.value).rpartition("see ")[2]).exists()
    assert list((sample.root / "work" / "upstream" / "trees").iterdir()) == []


def test_run_that_hangs(sample, monkeypatch):
    commit_tests(sample, "import threading\n\n\ndef test_hangs():\n    threading.Event().wait()\n")
    monkeypatch.setattr(upstreamtests, "LIMIT", 1)
    with pytest.raises(PatchsetError, match="the unit tests hang on base: no end in 1 s"):
        run(sample)


def test_no_test_is_chosen(sample):
    with pytest.raises(UsageError, match="no test was chosen"):
        run(sample, expression="no_such_test")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--source", "{clone}"], "--source is for one BASE; bases here: 1.0"),
        (["1.0", "1.0", "--source", "{clone}"], "--source is for one BASE"),
        (["1.0", "--only", "tools", "--source", "{clone}"], "--only does not go with --source"),
        (["1.0", "--source", "{clone}", "--", "-x"], "what follows -- does not go with --source"),
        (["1.0", "--revision", "main"], "--revision is for upstream's unit tests; give a clone"),
        (["1.0", "--paths", "tests"], "--paths is for upstream's unit tests; give a clone"),
        (["1.0", "--source", "{clone}", "--paths", "no/such.py"], "no such tests: no/such.py"),
        (["1.0", "--source", "{clone}", "--paths", "/etc"], "no such tests: /etc"),
        (["9.9", "--source", "{clone}"], "unknown base '9.9'"),
    ],
)
def test_usage(repository, args, said):
    before = state(repository.upstream)
    args = [arg.format(clone=repository.upstream) for arg in args]
    assert said in repository.fails("test", *args, code=2)
    assert state(repository.upstream) == before


@pytest.mark.parametrize(
    ("source", "revision", "said"),
    [
        ("nowhere", [], "nowhere is not the root of a git repository"),
        ("empty", [], "empty has no tag 1.0; fetch it: git -C "),
        ("{clone}", ["--revision", "gone"], "has no commit gone; fetch it: git -C "),
    ],
)
def test_clone_that_will_not_do(repository, source, revision, said):
    user_git("init", "--quiet", repository.root / "empty", cwd=repository.root)
    source = source.format(clone=repository.upstream)
    assert said in repository.fails("test", "1.0", "--source", source, *revision)


def test_conflict_on_the_way(repository):
    first = repository.upstream / "airflow-core" / "src" / "airflow" / "first.py"
    first.write_text(MODULE.replace("return 3\n", "return 333\n"))
    user_git("commit", "--quiet", "--all", "--message", "Elsewhere", cwd=repository.upstream)
    before = state(repository.upstream)
    said = repository.fails("test", "1.0", "--source", repository.upstream, "--revision", "HEAD")
    assert "0001-demo-Take-the-third-step-right.patch cannot be moved: conflict in " in said
    assert "airflow-core/src/airflow/first.py; to resolve it: scripts/patchset refresh 1.0 --onto " in said
    assert state(repository.upstream) == before


def test_worktrees_of_a_run_that_was_killed_are_removed(sample):
    clone = sample.upstream
    before = state(clone)
    with worktrees.scratch() as directory:
        left = directory.with_name("left")
        left.mkdir()
        worktrees.add(clone, "HEAD", left / "base")
        used = worktrees.add(clone, "HEAD", directory / "base")
        with worktrees.scratch():
            assert not left.exists()
            assert used.exists()  # somebody uses it
    assert not directory.exists()
    assert state(clone) == before


def test_worktree_whose_clone_is_gone_is_removed(sample, tmp_path):
    clone = tmp_path / "clone"
    user_git("clone", "--quiet", sample.upstream, clone, cwd=tmp_path)
    with worktrees.scratch() as directory:
        worktrees.add(clone, "HEAD", directory / "base")
        shutil.rmtree(clone)
    assert not directory.exists()
