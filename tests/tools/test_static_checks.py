# SPDX-License-Identifier: Apache-2.0
"""Upstream's static checks over each commit: real git and ruff, once real prek; mypy is a script."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from sampleset import user_git

import patchsetlib.patches.base
from patchsetlib.patches import moving
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.upstream import environment as upstreamenv
from patchsetlib.upstream import staticchecks
from patchsetlib.upstream.staticchecks import LeftOut, Tools, failed_hooks, reduce_configuration, ruff_version

SOURCE = "airflow-core/src/airflow"
PREK = """\
Running hooks for `airflow-core`:
Check one thing..........................................(no files to check)Skipped
Check another thing..........................................................Failed
- hook id: another
- exit code: 1

  a.py:3: this is wrong
  a.py:4: this as well

Running hooks for `.`:
Check words..................................................................Passed
Check the end................................................................Failed
- hook id: end
- files were modified by this hook
"""
ROOT_HOOKS = """\
repos:
  - repo: meta
    hooks: [{id: identity}]
  - repo: https://host.invalid/hooks
    rev: v1
    hooks: [{id: elsewhere}, {id: elsewhere-yaml, files: '\\.yaml$'}]
  - repo: local
    hooks:
      - {id: words, name: Words, entry: bad word, language: pygrep, files: '\\.py$'}
      - {id: ruff, name: Ruff, entry: ruff check, language: python, additional_dependencies: ['ruff==0.9.8']}
      - {id: ruff-format, name: Ruff, entry: ruff format, language: python}
      - {id: mypy-core, name: Mypy, entry: ./hooks/mypy.py, language: python}
      - {id: shell, name: Shell, entry: shellcheck, language: docker_image}
      - {id: in-breeze, name: Breeze, entry: ./hooks/breeze.py -v, language: python, files: ^airflow-core/}
      - {id: in-breeze-docs, name: Breeze, entry: ./hooks/breeze.py, language: python, files: ^docs/}
      - {id: download, name: D, entry: ./hooks/lint.py, language: python, args: [--spec-url, x], exclude: ^d}
      - {id: generate, name: D, entry: uv run -p 3.12 x, language: system, exclude: '\\.py$'}
      - {id: by-hand, name: Shell, entry: shellcheck, language: docker_image, stages: [manual]}
"""
CORE_HOOKS = """\
repos:
  - repo: local
    hooks:
      - {id: in-breeze-core, name: B, entry: ../hooks/breeze.py, language: python, files: ^src/}
      - {id: core, name: C, entry: ../hooks/lint.py, language: python, files: ^src/}
"""
OTHER_HOOKS = "repos: [{repo: local, hooks: [{id: other, name: O, entry: x, language: pygrep}]}]\n"


def test_ruff_version():
    assert ruff_version("  additional_dependencies: ['ruff==0.14.7']") == "0.14.7"
    assert ruff_version("- repo: https://host/astral-sh/ruff-pre-commit\n  rev: v0.9.8\n") == "0.9.8"
    with pytest.raises(PatchsetError, match="does not say which ruff"):
        ruff_version("repos: []")


def test_failed_hooks():
    assert list(failed_hooks(PREK)) == [
        "hook Check another thing: a.py:3: this is wrong / a.py:4: this as well",
        "hook Check the end: - files were modified by this hook",
    ]
    assert list(failed_hooks("error: Failed to install hook `x`\n")) == []


@pytest.fixture
def hooks(tmp_path):
    """A repository with hooks as upstream has them: at the root and in directories."""
    files = {
        ".pre-commit-config.yaml": ROOT_HOOKS,
        "airflow-core/.pre-commit-config.yaml": CORE_HOOKS,
        "other/.pre-commit-config.yaml": OTHER_HOOKS,
        "hooks/breeze.py": "initialize_breeze_prek(__name__, __file__)\n",
        "hooks/lint.py": "",
        f"{SOURCE}/a.py": "x = 'bad word'\n",
    }
    tree = tmp_path / "tree"
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    user_git("init", "--quiet", cwd=tree)
    user_git("add", "--all", cwd=tree)
    user_git("commit", "--quiet", "--message", "Hooks", cwd=tree)
    return tree


def ids(configuration: Path) -> list[str]:
    data = yaml.safe_load(configuration.read_text())
    return [hook["id"] for repository in data["repos"] for hook in repository["hooks"]]


def test_hooks_that_can_run_here(hooks):
    left_out = LeftOut()
    assert reduce_configuration(hooks, [f"{SOURCE}/a.py"], left_out)
    assert ids(hooks / ".pre-commit-config.yaml") == ["words"]
    assert ids(hooks / "airflow-core" / ".pre-commit-config.yaml") == ["core"]
    assert not (hooks / "other" / ".pre-commit-config.yaml").exists()
    # Only what is about the file is worth a word.
    assert left_out.reasons == {
        "come from other repositories": {"elsewhere"},
        "need docker": {"shell"},
        "need Breeze": {"in-breeze", "in-breeze-core"},
        "need the network": {"download"},
    }


def test_no_hook_at_all(hooks):
    (hooks / ".pre-commit-config.yaml").write_text("repos: []\n")
    assert not reduce_configuration(hooks, ["README.md"], LeftOut())


@pytest.fixture
def tools(tmp_path):
    """The programs: real ruff; mypy and prek say what is in a file of the tree."""
    for place, name in (("python-3.0", "python"), ("hooks", "prek")):
        program = tmp_path / place / "bin" / name
        program.parent.mkdir(parents=True)
        program.write_text(
            f'#!/bin/sh\necho "$@" >> "{tmp_path}/{name}.called"\ncat {name}.says 2>/dev/null || exit 0\n'
            f"exit $(cat {name}.code)\n"
        )
        program.chmod(0o755)
    shutil.copy(Path(sys.executable).with_name("ruff"), tmp_path / "hooks" / "bin")
    environment = upstreamenv.Environment(tmp_path / "python-3.0", ())
    return Tools(environment, tmp_path / "hooks", "2025-01-01T00:00:00Z")


@pytest.fixture
def sample(repository, tools, monkeypatch):
    """The sample patch set, whose upstream has hooks and settings for ruff."""
    upstream = repository.upstream
    user_git("tag", "-d", "1.0", cwd=upstream)
    (upstream / ".pre-commit-config.yaml").write_text(ROOT_HOOKS)
    (upstream / "pyproject.toml").write_text(
        "[tool.ruff]\nline-length = 30\nlint.select=['E','F']\nextend-exclude = ['first.py', 'second.py']\n"
    )
    # What is wrong before the patches is not theirs.
    (upstream / "python.says").write_text(f"{SOURCE}/first.py:7: error: Old thing  [misc]\n")
    (upstream / "python.code").write_text("1\n")
    user_git("add", "--all", cwd=upstream)
    user_git("commit", "--quiet", "--message", "Settings", cwd=upstream)
    user_git("tag", "1.0", cwd=upstream)
    settings = repository.base / "base.toml"
    monkeypatch.setattr(patchsetlib.patches.base, "ROOT", repository.root)
    monkeypatch.setenv("PATCHSET_WORK", str(repository.root / "work"))
    commit = patchsetlib.patches.base.load("1.0").commit
    settings.write_text(
        settings.read_text().replace(commit, user_git("rev-parse", "HEAD", cwd=upstream)), encoding="utf-8"
    )
    monkeypatch.setattr(Tools, "prepare", lambda *args: tools)
    return repository


def add_patch(repository, subject: str, files: dict[str, str]) -> None:
    tree = repository.root.parent / "full"
    if not tree.exists():
        repository.ok("checkout", "1.0", "--source", repository.upstream, "--dir", tree)
    repository.commit(tree, subject, files)
    repository.ok("export", "1.0", "--dir", tree)


def run(repository) -> list[str]:
    findings = staticchecks.run(patchsetlib.patches.base.load("1.0"), repository.upstream)
    return [f"{finding.file.name}: {finding.problem}" for finding in findings]


def test_commits_without_problems(sample, tmp_path, capfd):
    before = user_git("for-each-ref", cwd=sample.upstream) + user_git("worktree", "list", cwd=sample.upstream)
    assert run(sample) == []
    after = user_git("for-each-ref", cwd=sample.upstream) + user_git("worktree", "list", cwd=sample.upstream)
    assert after == before
    called = (tmp_path / "python.called").read_text().splitlines()
    modules = [[word for word in line.split() if word.endswith(".py")] for line in called]
    # Without the patches; then at each commit all that was changed up to it. The last one changes no module.
    old, new = [f"{SOURCE}/first.py", f"{SOURCE}/second.py"], "airflow-core/tests/unit/test_{}.py"
    third, seventh = new.format("third"), new.format("seventh")
    assert modules == [old, [old[0], third], [*old, seventh, third], [*old, seventh, third]]
    prek = (tmp_path / "prek.called").read_text().splitlines()
    assert prek[-1] == "run --color=never --files airflow-core/docs/guide.rst"
    assert "hooks left out, as they come from other repositories: elsewhere\n" in capfd.readouterr().err


def test_problems_are_those_of_the_commit(sample):
    add_patch(
        sample,
        "Make it worse",
        {
            f"{SOURCE}/third.py": "import os\nlong_name = 'a line that is too long'\nx = {  }\n",
            "python.says": f"{SOURCE}/first.py:10: error: Old thing  [misc]\n"
            f"{SOURCE}/first.py:9: error: Old thing  [misc]\n"
            f"{SOURCE}/third.py:1:4: error: New thing  [misc]\n{SOURCE}/third.py:1: note: See there\n",
            "prek.says": PREK,
            "prek.code": "1\n",
        },
    )
    add_patch(
        sample,
        "Make it better",
        {
            f"{SOURCE}/third.py": "x = {}\n",
            # What the patch before has brought in is told there.
            "python.says": f"{SOURCE}/first.py:9: error: Old thing  [misc]\n"
            f"{SOURCE}/third.py:99:4: error: New thing  [misc]\n",
            "prek.says": "",
            "prek.code": "0\n",
        },
    )
    problems = [line.partition(".patch: ") for line in run(sample)]
    assert {name for name, _, _ in problems} == {"0004-Make-it-worse"}
    assert [problem for _, _, problem in problems] == [
        f"ruff check: {SOURCE}/third.py:1:8: F401 [*] `os` imported but unused",
        f"ruff check: {SOURCE}/third.py:2:31: E501 Line too long (37 > 30)",
        f"ruff format: Would reformat: {SOURCE}/third.py",
        f"mypy: {SOURCE}/first.py:10: error: Old thing  [misc]",
        f"mypy: {SOURCE}/third.py:1:4: error: New thing  [misc]",
        "hook Check another thing: a.py:3: this is wrong / a.py:4: this as well",
        "hook Check the end: - files were modified by this hook",
    ]


def test_mypy_that_cannot_run_is_no_finding(hooks, tools):
    (hooks / "python.says").write_text("error: Cannot find config")
    (hooks / "python.code").write_text("2")
    with pytest.raises(PatchsetError, match="mypy: exit code 2: error: Cannot find config"):
        staticchecks._mypy(tools, hooks, ["a.py"])


def test_prek_that_cannot_run_is_no_finding(hooks, tools):
    (hooks / "prek.says").write_text("error: Failed to install hook `x`\n  caused by: no Python\n")
    (hooks / "prek.code").write_text("2")
    with pytest.raises(
        PatchsetError, match="prek cannot run upstream's hooks: error: Failed to install hook"
    ):
        list(staticchecks._hooks(tools, hooks, [f"{SOURCE}/a.py"], LeftOut()))
    assert user_git("status", "--porcelain", cwd=hooks) == ""


def test_skipped_with_the_reason(repository, tmp_path):
    said = repository.run("check").stderr
    assert "1.0: upstream's static checks skipped: no clone of apache/airflow; give --source CLONE\n" in said
    clone = repository.root / "clone"
    user_git("clone", "--quiet", "--no-tags", repository.upstream, clone, cwd=repository.root)
    done = repository.run("--quiet", "check", "--source", repository.upstream)
    assert (done.returncode, done.stdout) == (0, "")
    assert "upstream's static checks skipped: " in done.stderr
    assert " has no .pre-commit-config.yaml\n" in done.stderr
    empty = tmp_path / "empty"
    user_git("init", "--quiet", empty, cwd=tmp_path)
    done = repository.run("--quiet", "check", "--source", empty)
    assert (done.returncode, done.stdout) == (0, "")
    assert "static checks skipped: " in done.stderr
    assert "empty has no tag 1.0; fetch it: git -C " in done.stderr


def test_series_that_does_not_apply_is_told_once(sample, monkeypatch, capfd):
    def conflict(*args):
        raise PatchsetError("0001-x.patch cannot be moved: conflict in a.py", "resolve it")

    monkeypatch.setattr(moving, "place_series", conflict)
    assert run(sample) == []
    assert "skipped: 0001-x.patch cannot be moved: conflict in a.py\n" in capfd.readouterr().err


@pytest.mark.network
def test_real_prek(hooks, tmp_path, monkeypatch):
    monkeypatch.setenv("PATCHSET_WORK", str(tmp_path / "work"))
    place, date = tmp_path / "with-prek", "2025-12-02T00:00:00Z"
    log = tmp_path / "uv.log"
    upstreamenv.install(place, sys.executable, date, "prek", "uv", cwd=tmp_path, log=log)
    tools = Tools(upstreamenv.Environment(tmp_path / "python-3.0", ()), place, date)
    (hooks / "airflow-core" / ".pre-commit-config.yaml").unlink()
    user_git("commit", "--quiet", "--all", "--message", "No hooks here", cwd=hooks)
    (hooks / "b.py").write_text("x = 'good word'\n")
    user_git("add", "--all", cwd=hooks)
    user_git("commit", "--quiet", "--message", "Good", cwd=hooks)

    found = list(staticchecks._hooks(tools, hooks, [f"{SOURCE}/a.py", "b.py"], LeftOut()))

    assert len(found) == 1
    assert found[0].startswith("hook Words: ")
    assert f"{SOURCE}/a.py:1:x = 'bad word'" in found[0]
    assert list(staticchecks._hooks(tools, hooks, ["b.py"], LeftOut())) == []
    assert user_git("status", "--porcelain", cwd=hooks) == ""
