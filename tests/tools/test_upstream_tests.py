# SPDX-License-Identifier: Apache-2.0
"""``test BASE --source CLONE``: what differs between two real runs of pytest is told as it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from monorepo import FILES, FULL, STEPS, UNIT, PatchSet, commit, git

from patchsetlib.upstream.unittests import compare

TESTS = """\
import atexit
import os
import threading
from importlib import metadata
from pathlib import Path

import pytest
from airflow.steps import step_3

# As with workers of stock's LocalExecutor, which the interpreter joins at its exit.
atexit.register(threading.Event().wait)


def test_packages_are_those_of_the_date_of_the_base():
    assert metadata.version("pytest") == "9.0.2"


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


@pytest.fixture
def breaks():
    yield
    raise OSError("after the test")


def test_teardown(breaks):
    pass


@pytest.mark.xfail
def test_expected_to_fail():
    assert step_3() == 0


class TestMany:
    @pytest.mark.parametrize("value", [*range(step_3() - 1, 3), "a.b::c"])
    def test_each(self, value):
        pass
"""
PATCHES = {
    "Take the third step": {
        STEPS: FILES[STEPS].replace("return 3\n", "return 33\n"),
        f"{UNIT}/test_third.py": "def test_third():\n    pass\n",
    },
    "Test other things": {
        f"{UNIT}/test_old.py": "def test_other():\n    pass\n",
        "task-sdk/tests/test_sdk.py": "def test_sdk():\n    pass\n",
    },
}
OLD = {
    f"{UNIT}/test_three.py": TESTS,
    f"{UNIT}/test_old.py": "def test_old():\n    pass\n",
    f"{UNIT}/test_broken.py": "import no_such_module\n",
    # A distribution with settings of its own.
    "task-sdk/pyproject.toml": "[tool.pytest.ini_options]\n",
    "task-sdk/tests/conftest.py": FULL["airflow-core/tests/conftest.py"],
}


@pytest.mark.parametrize(
    ("patched", "good"),
    [
        ({"a::1": "passed", "b::1": "failed", "new::1": "passed"}, True),
        ({"a::1": "failed", "b::1": "failed"}, False),
        ({"a::1": "passed"}, True),
        ({"b::1": "failed"}, False),
    ],
    ids=["same", "newly failing", "gone with its file's patch", "gone without"],
)
def test_verdict(patched, good):
    assert compare({"a::1": "passed", "b::1": "failed"}, patched, {"b": ["Drop b"]}).good == good


@pytest.fixture(scope="module")
def patch_set(tmp_path_factory) -> PatchSet:
    return PatchSet.make(tmp_path_factory.mktemp("tests") / "patch sét", PATCHES, FULL | OLD)


def run(patch_set: PatchSet, *args: str | Path) -> subprocess.CompletedProcess[str]:
    before = patch_set.state()
    done = patch_set.run("--quiet", "test", "main-1", "--source", patch_set.clone, *args)
    assert patch_set.state() == before
    assert not list((patch_set.root / "work" / "upstream").glob("trees-*"))
    return done


@pytest.mark.network
def test_what_differs(patch_set):
    done = run(patch_set, "--paths", UNIT)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    raw = json.loads(Path(lines.pop()).read_text())
    three = f"{UNIT}/test_three.py"
    assert lines[1:] == [
        "             base  patched",
        "passed          7        7",
        "failed          4        4",
        "skipped         1        1",
        "flaky           0        1  (passed when run again)",
        "newly failing: 1",
        f"  {three}::test_three: AssertionError: not three",
        "newly passing: 1",
        f"  {three}::test_thirty_three",
        "gone: 2",
        f"  {UNIT}/test_old.py::test_old: changed by 'Test other things'",
        f"  {three}::TestMany::test_each[2]: no patch changes its file",
    ]
    assert raw["outcomes"]["patched"][f"{three}::TestMany::test_each[a.b::c]"] == "passed"
    assert raw["flaky"]["patched"] == [f"{three}::test_flaky"]
    assert raw["messages"]["base"][f"{three}::test_teardown"] == "OSError: after the test"
    assert raw["outcomes"]["base"][f"{UNIT}/test_broken.py"] == "failed"
    assert len(raw["patches"]) == 2


@pytest.mark.network
def test_series_that_breaks_nothing_on_another_commit(patch_set):
    """Without --paths those that upstream has of PATHS are run, and those that the patches change."""
    commit(
        patch_set.upstream,
        "Go on",
        {"airflow-core/docs/guide.rst": "Moved on\n", f"{UNIT}/jobs/test_a.py": ""},
    )
    git(patch_set.clone, "fetch", "--quiet", patch_set.upstream, "main")
    done = run(patch_set, "--revision", "FETCH_HEAD")
    assert done.returncode == 0, done.stderr
    raw = json.loads(Path(done.stdout.splitlines()[-1]).read_text())
    assert raw["commit"] == git(patch_set.upstream, "rev-parse", "HEAD")
    assert sorted(raw["outcomes"]["patched"]) == [
        f"{UNIT}/test_old.py::test_other",
        f"{UNIT}/test_third.py::test_third",
        "task-sdk/tests/test_sdk.py::test_sdk",
    ]
    assert "has no airflow-core/tests/unit/executors, " in done.stderr


@pytest.mark.network
def test_pytest_that_does_not_get_to_its_end(tmp_path):
    killed = "import os\n\n\ndef test_end():\n    os.kill(os.getpid(), 9)\n"
    patch_set = PatchSet.make(tmp_path / "top", {}, FULL | {f"{UNIT}/test_end.py": killed})
    done = run(patch_set, "--paths", f"{UNIT}/test_end.py")
    assert done.returncode == 1
    problem, _, log = done.stderr.rstrip("\n").rpartition("; see ")
    assert problem.endswith("pytest did not run all tests of base-airflow-core: it ended without a report")
    assert (patch_set.root / log).is_file()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--paths", "no/such.py"], "no such tests: no/such.py; give paths of the monorepo"),
        (["--paths", "/etc"], "no such tests: /etc"),
        (["--revision", "gone"], "has no commit gone; fetch it: git -C "),
        (["--source", "scripts"], "scripts is not the root of a git repository"),
    ],
)
def test_mistakes(patch_set, args, said):
    done = run(patch_set, *args)
    assert done.returncode in (1, 2)
    assert said in done.stderr.splitlines()[-1]


def test_conflict_on_the_way(patch_set):
    git(patch_set.clone, "checkout", "--quiet", "--force", "--detach")
    commit(patch_set.clone, "Clash", {STEPS: FILES[STEPS].replace("return 3\n", "return 333\n")})
    done = run(patch_set, "--revision", "HEAD")
    assert done.returncode == 1
    assert "0001-Take-the-third-step.patch does not apply to " in done.stderr
    assert f"conflict in {STEPS}; move the series there first: scripts/patchset refresh main-1" in done.stderr
