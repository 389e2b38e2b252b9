# SPDX-License-Identifier: Apache-2.0
"""The verb ``test``, on a patch set with three tests in each part."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """\
import pytest


def test_{part}_passes(summary):
    summary("what ran", "{part} in another process")


def test_{part}_sees_options(request):
    assert request.config.getoption("--base") in ([], ["1.0"])


@pytest.mark.nightly
def test_{part}_takes_long():
    pass
"""


@pytest.fixture
def tests(empty, tmp_path_factory):
    """A patch set in which all tests pass."""
    # Two pytests that end at the same time can fall over each other when they tidy up a directory they share.
    empty.env["PYTEST_DEBUG_TEMPROOT"] = str(tmp_path_factory.mktemp("root"))
    shutil.copy(ROOT / "pyproject.toml", empty.root)
    for part in ("tools", "series", "faults", "e2e"):
        directory = empty.root / "tests" / part
        directory.mkdir(parents=True)
        (directory / f"test_{part}.py").write_text(TESTS.format(part=part))
    shutil.copy(ROOT / "tests" / "conftest.py", empty.root / "tests")
    return empty


def test_all_parts_with_their_summaries(tests, tmp_path):
    # -k: without it the environments would be built first, for which there is no wheel here.
    lines = tests.ok("test", "-k", "test", cwd=tmp_path).splitlines()
    said = [line for line in lines if line.endswith(" in another process")]
    assert said == sorted(f"{part} in another process" for part in ("tools", "series", "faults", "e2e"))
    assert "8 passed" in lines[-1]


def test_group_of_tests_runs_in_one_process(tests):
    """What the first of them starts runs all faults of a base."""
    (tests.root / "tests" / "faults" / "test_faults.py").write_text(
        "import os\nimport pytest\n\n\n"
        "@pytest.mark.xdist_group('faults')\n@pytest.mark.parametrize('fault', range(8))\n"
        "def test_fault(fault, summary):\n    summary('processes', f'process {os.getpid()}')\n"
    )
    lines = tests.ok("test", "--only", "faults", "-k", "test").splitlines()
    assert len([line for line in lines if line.startswith("process ")]) == 8
    assert len({line for line in lines if line.startswith("process ")}) == 1


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (["--base", "1.0", "--only", "tools", "--all"], "3 passed"),
        (["--only", "tools", "--", "-k", "passes"], "1 passed"),
        (["--", "tests/series/test_series.py::test_series_passes"], "1 passed"),
    ],
)
def test_choice_of_tests(tests, arguments, result):
    assert result in tests.ok("test", *arguments).splitlines()[-1]


def test_failure_is_the_exit_code(tests):
    (tests.root / "tests" / "tools" / "test_broken.py").write_text("def test_broken():\n    assert False\n")
    # Options for other suites are not taken.
    tests.env["PYTEST_ADDOPTS"] = "--no-such-option"
    done = tests.run("test", "--only", "tools")
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["9.9"], 2, "unknown base '9.9'; bases here: 1.0"),
        (["--only", "nothing"], 2, "invalid choice: 'nothing'"),
        (["--python", "3.12"], 2, "--python is for upstream's unit tests"),
    ],
)
def test_clear_error_before_anything_runs(tests, arguments, code, said):
    assert said in tests.fails("test", *arguments, code=code)


def test_tests_of_other_bases_are_left_out(tests):
    (tests.root / "tests" / "tools" / "test_bases.py").write_text(
        "import pytest\n\n\n@pytest.mark.base('2.0')\ndef test_other():\n    assert False\n\n\n"
        "@pytest.mark.base('1.0')\ndef test_this():\n    pass\n"
    )
    assert "3 passed" in tests.ok("test", "1.0", "--only", "tools").splitlines()[-1]
