# SPDX-License-Identifier: Apache-2.0
"""The verb ``test``, on a patch set with three tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PASSES = """\
def test_{part}_passes(request):
    print("bases:", request.config.getoption("--base"))


def test_{part}_has_a_base_option(request):
    assert request.config.getoption("--base") in ([], ["1.0"])
"""


@pytest.fixture
def tests(empty):
    """A patch set in which two tests of each part pass."""
    shutil.copy(ROOT / "pyproject.toml", empty.root)
    for part in ("tools", "series", "faults", "e2e"):
        directory = empty.root / "tests" / part
        directory.mkdir(parents=True)
        (directory / f"test_{part}.py").write_text(PASSES.format(part=part))
    shutil.copy(ROOT / "tests" / "conftest.py", empty.root / "tests")
    return empty


def test_all_parts_in_one_run_and_its_summary_last(tests, tmp_path):
    # -k: without it the environments would be built first, for which there is no wheel here.
    out = tests.ok("test", "-k", "passes", cwd=tmp_path)
    lines = out.splitlines()
    order = [line.split("test_")[1].split(".py")[0] for line in lines if ".py ." in line]
    assert order == ["tools", "series", "faults", "e2e"]
    assert "4 passed, 4 deselected" in lines[-1]


def test_one_part(tests):
    assert "2 passed" in tests.ok("test", "--only", "tools").splitlines()[-1]


def test_one_base_and_options_of_pytest(tests):
    out = tests.ok("test", "1.0", "--only", "tools", "--", "-k", "passes", "-s")
    assert "bases: ['1.0']" in out
    assert "1 passed, 1 deselected" in out.splitlines()[-1]


def test_path_for_pytest_replaces_the_parts(tests):
    out = tests.ok("test", "--", "tests/series/test_series.py::test_series_passes")
    assert out.splitlines()[-1].strip("= ").startswith("1 passed in")


def test_failure_is_the_exit_code(tests):
    (tests.root / "tests" / "tools" / "test_broken.py").write_text("def test_broken():\n    assert False\n")
    done = tests.run("test", "--only", "tools")
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout.splitlines()[-1]


def test_options_for_other_suites_are_not_taken(tests):
    tests.env["PYTEST_ADDOPTS"] = "--no-such-option"
    assert "2 passed" in tests.ok("test", "--only", "tools")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["9.9"], 2, "unknown base '9.9'; bases here: 1.0"),
        (["--only", "nothing"], 2, "invalid choice: 'nothing'"),
        (["--only", "series"], 1, "test-constraints.txt: No such file"),
    ],
)
def test_clear_error_before_anything_runs(tests, args, code, said):
    assert said in tests.fails("test", *args, code=code)


def test_no_tests_here(empty):
    assert "there is no " in empty.fails("test", "--only", "tools")


def test_tests_of_other_bases_are_left_out(tests):
    (tests.root / "tests" / "e2e" / "test_e2e.py").write_text(
        "import pytest\n\n\n@pytest.mark.base('2.0')\ndef test_other():\n    assert False\n\n\n"
        "@pytest.mark.base('1.0')\ndef test_this():\n    pass\n"
    )
    out = tests.ok("test", "1.0", "--only", "e2e", "-k", "other or this")
    assert "1 passed, 1 deselected" in out.splitlines()[-1]
