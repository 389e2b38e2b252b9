# SPDX-License-Identifier: Apache-2.0
"""The Python environment of a full checkout: what its unit tests and mypy need, as of its commit."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet

from patchsetlib.patches.base import Base
from patchsetlib.shell import processes, ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git

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
_DEPENDENCIES = Path("generated", "provider_dependencies.json")


def install(base: Base, tree: Path, start: str, place: Path, python_version: str | None = None) -> Path:
    """
    Make a virtual environment with upstream's packages of ``tree`` as editable ones; return its Python.

    It is made anew each time, which takes uv 10 to 20 s with a warm cache.

    :param tree: a full checkout of ``start``, with or without patches on top
    :param start: upstream's commit; other packages are taken as they were at its date
    :param place: directory to create
    :param python_version: as for ``uv venv --python``; without it that in ``PATCHSET_PYTHON``, else the one
        that runs the tool if it suits ``base``, else any that does
    :raises PatchsetError: if it cannot be made
    """
    if not (tree / "airflow-core" / "pyproject.toml").is_file():
        raise PatchsetError(f"{start[:12]} has no airflow-core/pyproject.toml", "give a commit of Airflow 3")
    suits = SpecifierSet(base.python).contains(platform.python_version())
    wanted = python_version or os.environ.get("PATCHSET_PYTHON") or (sys.executable if suits else base.python)
    python = place / "bin" / "python"
    packages = [word for name in PACKAGES if (tree / name).is_dir() for word in ("--editable", f"./{name}")]
    with ui.step(f"installing what {tree.name} needs, as of {start[:12]}"):
        uvtool.uv("venv", "--no-project", "--python", wanted, place, cwd=tree)
        options = ("--python", python, "--exclude-newer", commit_date(tree, start))
        # uv follows [tool.uv.sources] of the monorepo: the other packages of upstream are editable as well.
        uvtool.uv("pip", "install", *options, *packages, "pytest-reportlog", cwd=tree)
        _add_generated(tree, python)
    return python


def commit_date(tree: Path, commit: str) -> str:
    """Return when ``commit`` was made, RFC 3339."""
    return git("show", "--no-patch", "--format=%cI", commit, cwd=tree).strip()


def variables(python: Path) -> dict[str, str]:
    """Return all environment variables to run something in the environment of ``python`` with."""
    own = processes.neutral_environment()
    return own | {"PATH": f"{python.parent}:{own['PATH']}", "PYTHONNOUSERSITE": "1"}


def _add_generated(tree: Path, python: Path) -> None:
    """
    Put into ``tree`` the generated file that upstream's test plugin would otherwise make with the network.

    :raises PatchsetError: if upstream's script for it fails
    """
    script = Path("scripts", "ci", "prek", "update_providers_dependencies.py")
    done = subprocess.run(
        [python, script],
        cwd=tree,
        env=variables(python),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PatchsetError(f"upstream's {script.name} fails: {(done.stderr.splitlines() or ['?'])[-1]}")
    # The checksum by which the plugin sees that the file is up to date.
    members = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]
    providers = [tree / name for name in members["members"] if name.startswith("providers/")]
    digest = hashlib.sha256()
    for file in sorted(place / name for place in providers for name in ("provider.yaml", "pyproject.toml")):
        digest.update(file.read_bytes())
    (tree / f"{_DEPENDENCIES}.sha256sum").write_text(digest.hexdigest())
