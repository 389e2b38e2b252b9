# SPDX-License-Identifier: Apache-2.0
"""``check BASE --source CLONE``: upstream's hooks and mypy over each commit, with real prek and mypy."""

from __future__ import annotations

import re

import pytest
from monorepo import FULL, STEPS, PatchSet, commit, git

SOURCE = "airflow-core/src/airflow"
# Wrong before the patches, so it is not their fault; it moves down by a line.
OLD = f"old: int = 'word'\n{FULL[STEPS]}"
PATCHES = {
    "Make it worse": {
        STEPS: f"import sys\n{OLD}another: bytes = 'word'\n",
        f"{SOURCE}/words.py": "x = 'bad word'\n",
    },
    "Make it better": {f"{SOURCE}/words.py": "x = 'good word'\n"},
    "Let it be repaired": {f"{SOURCE}/repaired.py": "x = 1\n"},
}


@pytest.fixture(scope="module")
def patch_set(tmp_path_factory) -> PatchSet:
    return PatchSet.make(tmp_path_factory.mktemp("checks") / "patch sét", PATCHES, FULL | {STEPS: OLD})


def findings(output: str) -> list[tuple[str, str]]:
    """Return the findings of the static checks: name of the patch, and what is wrong."""
    found = re.split(r"^airflow-core/main-1/(\S+?)\.patch: ", output, flags=re.MULTILINE)[1:]
    checked = zip(found[::2], found[1::2], strict=True)
    return [(name, problem) for name, problem in checked if re.match("upstream's hooks|mypy", problem)]


@pytest.mark.network
def test_each_commit_is_checked_and_what_was_wrong_before_is_not_told(patch_set):
    before = patch_set.state()
    done = patch_set.run("--quiet", "check", "main-1", "--source", patch_set.clone)
    assert done.returncode == 1, done.stderr
    hooks, mypy, repaired = findings(done.stdout)
    assert hooks[0] == "0001-Make-it-worse"
    assert hooks[1].startswith("upstream's hooks fail\n")
    assert f"{SOURCE}/words.py:1:x = 'bad word'" in hooks[1]
    assert mypy[0] == "0001-Make-it-worse"
    assert re.match(rf"mypy: {STEPS}:\d\d: error: Incompatible types", mypy[1])
    assert repaired[0] == "0003-Let-it-be-repaired"
    assert "files were modified by this hook" in repaired[1]
    assert patch_set.state() == before
    assert not list((patch_set.root / "work" / "upstream").glob("trees-*"))


def test_what_cannot_run_is_no_finding(patch_set, tmp_path):
    """Without network and cache no environment can be made; nothing is left behind either."""
    before = patch_set.state()
    variables = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path)}
    done = patch_set.run("--quiet", "check", "main-1", "--source", patch_set.clone, **variables)
    assert done.returncode == 1
    assert findings(done.stdout) == []
    assert done.stderr.splitlines()[-1].startswith("patchset: ")
    assert patch_set.state() == before


def test_skipped_with_the_reason(tmp_path):
    patch_set = PatchSet.make(tmp_path / "top", {})
    said = patch_set.run("check", "main-1").stderr
    assert "main-1: upstream's static checks skipped: give --source CLONE\n" in said
    said = patch_set.run("check", "main-1", "--source", patch_set.clone).stderr
    assert "main-1: upstream's static checks skipped: no patches" in said


def test_series_that_does_not_apply_is_told_once(tmp_path):
    patch_set = PatchSet.make(tmp_path / "top", {"Clash": {STEPS: "x = 1\n"}})
    (patch_set.base / "series").write_text("0001-Clash.patch\n0001-Clash.patch\n")
    done = patch_set.run("--quiet", "check", "main-1", "--source", patch_set.clone)
    assert done.returncode == 1
    assert "main-1: upstream's static checks skipped: 0001-Clash.patch does not apply" in done.stderr
    assert findings(done.stdout) == []


def test_remote_hooks_are_those_of_other_repositories(patch_set, tmp_path):
    from patchsetlib.upstream import staticchecks

    git(tmp_path, "clone", "--quiet", patch_set.upstream, tmp_path / "tree")
    commit(
        tmp_path / "tree",
        "More",
        {"go/.pre-commit-config.yaml": "repos:\n- repo: local\n  hooks:\n  - id: a\n"},
    )
    assert staticchecks.remote_hooks(tmp_path / "tree") == {"identity", "elsewhere", "also-elsewhere"}
