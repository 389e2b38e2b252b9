# SPDX-License-Identifier: Apache-2.0
"""
The environment for a full checkout of apache/airflow: what its unit tests and mypy need, as of its commit.

Upstream's own distributions are installed as editable ones and their sources then taken off the path again:
only their metadata (entry points, requirements) stay. So one environment serves every tree of that commit,
with and without patches, and each run says with ``PYTHONPATH`` which tree it means.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from patchsetlib.installs import environment, interpreters
from patchsetlib.patches.base import Base
from patchsetlib.shell import processes, ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display, work_dir
from patchsetlib.shell.staging import remove_tree, staged

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The tests of executors, jobs and the API import these providers; all others that are needed come with them.
PACKAGES = (
    "airflow-core",
    "devel-common",
    "providers/amazon",
    "providers/celery",
    "providers/cncf/kubernetes",
    "providers/git",
)
_SOURCES = "patchset-sources.json"
_DEPENDENCIES = Path("generated", "provider_dependencies.json")
_DEPENDENCIES_SCRIPT = Path("scripts", "ci", "prek", "update_providers_dependencies.py")
# Raise it to have all environments built anew when this module changes what it puts there.
_FORMAT = 1


@dataclass(frozen=True)
class Environment:
    """An environment that is ready."""

    place: Path
    sources: tuple[str, ...]
    """Directories of the monorepo that go on the path, in this order."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.place / "bin" / "python"

    @property
    def version(self) -> str:
        """``X.Y`` of its interpreter."""
        return self.place.name.split("-")[1]

    def variables(self, tree: Path, home: Path) -> dict[str, str]:
        """
        Return all environment variables to run something of ``tree`` with.

        :param home: for ``AIRFLOW_HOME``
        """
        return processes.neutral_environment() | {
            "PATH": environment.variables(self.python)["PATH"],
            "PYTHONPATH": os.pathsep.join(str(tree / source) for source in self.sources),
            "PYTHONNOUSERSITE": "1",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_SOURCES": str(tree),
        }


def prepare(base: Base, tree: Path, commit: str, python_version: str | None = None) -> Environment:
    """
    Return the environment for ``commit``, built first if there is none.

    :param base: says which Pythons it may be
    :param tree: a full checkout of ``commit``
    :param python_version: ``X.Y``, ``X.Y.Z`` or the path of an interpreter; see ``interpreters.choose``
    :raises PatchsetError: if it cannot be built
    """
    if not (tree / PACKAGES[0] / "pyproject.toml").is_file():
        raise PatchsetError(f"{commit[:12]} has no {PACKAGES[0]}", "give a commit of Airflow 3")
    choice = interpreters.choose(base, python_version)
    place = directory(commit) / f"python-{choice.full or choice.minor}-{_FORMAT}"
    if not (place / "bin" / "python").exists():
        remove_tree(place)  # its Python has been uninstalled
        interpreter = interpreters.find(base, choice)
        with ui.step(f"installing what the sources of {commit[:12]} need for Python {choice.minor}"):
            try:
                with staged(place) as building:
                    _build(tree, commit, building, interpreter, place.with_name(f"{place.name}.log"))
            except PatchsetError:
                # Another run may have built the same meanwhile.
                if not place.exists():
                    raise
    return Environment(place, tuple(json.loads((place / _SOURCES).read_text(encoding="utf-8"))))


def directory(commit: str) -> Path:
    """Return the directory for all that belongs to one commit of upstream."""
    return work_dir() / "upstream" / commit[:12]


def install(
    place: Path, interpreter: str | Path, commit_date: str, *requirements: str, cwd: Path, log: Path
) -> None:
    """
    Make a virtual environment at ``place`` with ``requirements`` as they were at a time.

    :param commit_date: RFC 3339; what was uploaded later does not exist
    :param log: file for what uv says
    :raises PatchsetError: if uv fails
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # Relocatable, as it is moved when it is complete.
    options = ("--no-project", "--relocatable", "--allow-existing", "--python", interpreter)
    uvtool.uv("venv", *options, place, cwd=cwd, log=log)
    options = ("--python", place / "bin" / "python", "--exclude-newer", commit_date)
    uvtool.uv("pip", "install", *options, *requirements, cwd=cwd, log=log)


def commit_date(tree: Path, commit: str) -> str:
    """Return when ``commit`` was made, RFC 3339."""
    seconds = int(git("show", "--no-patch", "--format=%ct", commit, cwd=tree))
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _build(tree: Path, commit: str, place: Path, interpreter: str, log: Path) -> None:
    editable = [
        word
        for package in PACKAGES
        if (tree / package / "pyproject.toml").is_file()
        for word in ("--editable", f"./{package}")
    ]
    log.unlink(missing_ok=True)
    install(place, interpreter, commit_date(tree, commit), *editable, cwd=tree, log=log)
    (place / _SOURCES).write_text(json.dumps(_detach(tree, place)), encoding="utf-8")
    _write_dependencies(tree, Environment(place, ()), log)
    (place / _DEPENDENCIES.name).write_bytes((tree / _DEPENDENCIES).read_bytes())
    (place / f"{_DEPENDENCIES.name}.of").write_text(_dependencies_key(tree))


def _detach(tree: Path, place: Path) -> list[str]:
    """Take the sources of ``tree`` off the path of the environment and return their directories."""
    found = []
    for file in sorted(place.glob("lib/python*/site-packages/*.pth")):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        inside = [Path(line).relative_to(tree) for line in lines if Path(line).is_relative_to(tree)]
        if inside:
            found += map(str, inside)
            file.unlink()
    # Upstream's own settings put it first as well: it holds the package that all others add to.
    return sorted(found, key=lambda source: not source.startswith(PACKAGES[0]))


def add_generated(tree: Path, env: Environment, log: Path) -> None:
    """
    Put into ``tree`` the generated files that upstream's test plugin would otherwise make with the network.

    :raises PatchsetError: if that fails
    """
    key = _dependencies_key(tree)
    if (env.place / f"{_DEPENDENCIES.name}.of").read_text() == key:
        (tree / _DEPENDENCIES).parent.mkdir(exist_ok=True)
        (tree / _DEPENDENCIES).write_bytes((env.place / _DEPENDENCIES.name).read_bytes())
    else:
        _write_dependencies(tree, env, log)
    (tree / f"{_DEPENDENCIES}.sha256sum").write_text(key)


def _write_dependencies(tree: Path, env: Environment, log: Path) -> None:
    command = [env.python, _DEPENDENCIES_SCRIPT]
    done = processes.run(command, cwd=tree, env=processes.neutral_environment(), log=log)
    if done.returncode or not (tree / _DEPENDENCIES).is_file():
        raise PatchsetError(f"upstream's {_DEPENDENCIES_SCRIPT.name} fails", f"see {display(log)}")


def _dependencies_key(tree: Path) -> str:
    """Return the checksum by which upstream's test plugin sees whether its generated file is up to date."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    members = project["tool"]["uv"]["workspace"]["members"]
    digest = hashlib.sha256()
    for file in sorted(
        tree / member / name
        for member in members
        if member.startswith("providers/")
        for name in ("pyproject.toml", "provider.yaml")
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()
