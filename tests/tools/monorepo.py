# SPDX-License-Identifier: Apache-2.0
"""A small monorepo in the form of upstream's, a clone of it, and a patch set for one of its commits."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sampleset import SCRIPTS, Repository, user_git, write

STEPS = "airflow-core/src/airflow/steps.py"
UNIT = "airflow-core/tests/unit"
TEMPLATE = ".github/PULL_REQUEST_TEMPLATE.md"
FILES = {
    STEPS: "".join(f"def step_{n}() -> int:\n    return {n}\n\n\n" for n in range(10)),
    f"{UNIT}/test_steps.py": "from airflow import steps\n\n\ndef test_one():\n    assert steps.step_1()\n",
    "airflow-core/docs/guide.rst": "Guide\n=====\n",
    TEMPLATE: "<!-- The licence.\n---\n-->\n\n<!-- How to write it. -->\n\n---\n\n##### Was Gen-AI used?\n\n"
    "<!-- Say which. -->\n\n- [ ] Yes\n",
}
TRAILERS = "Exit-condition: upstream has it\nForwarded: no\n"
Files = dict[str, str]


def git(tree: Path, *args: str | Path, **variables: str) -> str:
    return user_git(*args, cwd=tree, **variables)


def commit(tree: Path, message: str, files: Files, **variables: str) -> None:
    write(tree, files)
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", message, **variables)


class PatchSet(Repository):
    """The tools in a directory of their own, with one base, ``main-1``."""

    def __init__(self, top: Path):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PATCHSET_"))}
        env = kept | {"COLUMNS": "500", "GIT_CONFIG_GLOBAL": str(top / "gitconfig")}
        super().__init__(top / "set", top / "upstream", env, "main-1")
        self.top = top
        # A contributor's; what it has checked out is edited.
        self.clone = top / "my clone"

    @classmethod
    def make(cls, top: Path, patches: dict[str, Files], files: Files = FILES) -> PatchSet:
        """
        Make it all.

        :param patches: message to what the patch makes of files, in order
        :param files: those of upstream at the base
        """
        self = cls(top)
        shutil.copytree(SCRIPTS, self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.upstream.mkdir()
        git(self.upstream, "init", "--quiet", "--initial-branch=main")
        commit(self.upstream, "Base", files, GIT_COMMITTER_DATE="2026-01-01T00:00:00Z")
        base = git(self.upstream, "rev-parse", "HEAD")
        for message, changed in patches.items():
            commit(self.upstream, message, changed)
        self.base.mkdir(parents=True)
        options = ("--quiet", "--no-signature", "--output-directory", self.base)
        git(self.upstream, "format-patch", *options, base)
        git(self.upstream, "reset", "--quiet", "--hard", base)
        (self.base / "series").write_text("".join(f"{path.name}\n" for path in self.patches))
        (self.base / "base.toml").write_text(
            f'version = "1.0"\n[git]\nrepository = "{self.upstream.as_uri()}"\ncommit = "{base}"\n'
            '[python]\nrange = ">=3.10"\n[[distribution]]\nproject = "core"\ndirectory = "airflow-core"\n'
        )
        git(top, "clone", "--quiet", self.upstream, self.clone)
        (self.clone / STEPS).write_text("edited\n")
        return self

    def run(self, *args: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the tool."""
        return super().run(*args, env=self.env | variables)

    def state(self) -> list[str]:
        """Return what nothing but a new branch may change: names, worktrees and files of the clone."""
        tracked = ("for-each-ref", "worktree list --porcelain", "status --porcelain", "rev-parse HEAD")
        return [git(self.clone, *words.split()) for words in tracked]


def _project(name: str, dependencies: str, packages: str) -> str:
    return (
        f'[project]\nname = "{name}"\nversion = "1"\ndependencies = [{dependencies}]\n'
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f"[tool.hatch.build.targets.wheel]\n{packages}\n"
    )


# What makes it a full checkout: packages that can be installed, upstream's hooks, and its options for pytest.
FULL = FILES | {
    "pyproject.toml": '[tool.uv.workspace]\nmembers = ["airflow-core", "devel-common", "providers/one"]\n'
    "[tool.pytest.ini_options]\n",
    "airflow-core/pyproject.toml": _project("apache-airflow-core", "", 'packages = ["src/airflow"]'),
    "devel-common/pyproject.toml": _project(
        "apache-airflow-devel-common", '"pytest", "pytest-rerunfailures", "mypy"', "bypass-selection = true"
    ),
    "providers/one/pyproject.toml": _project("one", "", "bypass-selection = true"),
    "providers/one/provider.yaml": "",
    "airflow-core/src/airflow/__init__.py": "",
    "airflow-core/tests/conftest.py": "def pytest_addoption(parser):\n"
    '    parser.addoption("--with-db-init", action="store_true")\n'
    '    for phase in ("setup", "execution", "teardown"):\n        parser.addoption(f"--{phase}-timeout")\n',
    "scripts/ci/prek/update_providers_dependencies.py": "from pathlib import Path\n"
    'Path("generated").mkdir(exist_ok=True)\nPath("generated/provider_dependencies.json").touch()\n',
    ".gitignore": "__pycache__/\n*.egg-info/\ngenerated/\n",
    ".pre-commit-config.yaml": """\
repos:
  - repo: meta
    hooks: [{id: identity}]
  - repo: https://host.invalid/hooks
    rev: v1
    hooks:
      - id: elsewhere
  - repo: local
    hooks:
      - id: words
        name: No bad words
        entry: bad word
        language: pygrep
        files: \\.py$
      - id: end
        name: End of file
        entry: sh -c 'for file; do echo >> "$file"; done' -
        language: system
        files: repaired\\.py$
""",
    "chart/.pre-commit-config.yaml": "repos:\n  - repo: https://host.invalid/more\n    rev: v1\n    hooks:\n"
    "      - id: also-elsewhere\n",
}
