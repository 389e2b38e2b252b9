# SPDX-License-Identifier: Apache-2.0
"""Choose the Python that an environment is made for."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from patchsetlib.patches.base import Base
from patchsetlib.shell import processes
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError, UsageError

VARIABLE = "PATCHSET_PYTHON"
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
# What Airflow cannot do without and a Python that was built by hand often lacks.
_MODULES = ("bz2", "ctypes", "sqlite3", "ssl", "zlib")
_PROBE = (
    "import importlib.util as u, json, platform, sys; "
    "print(json.dumps([platform.python_version(), sys.implementation.name, "
    f"[m for m in {_MODULES} if not u.find_spec('_' + m if m != 'zlib' else m)]]))"
)


@dataclass(frozen=True)
class Choice:
    """The Python that is wanted; which interpreter that is, is looked up only if one is needed."""

    minor: str
    """``X.Y``"""
    full: str | None = None
    """``X.Y.Z``, if asked for"""
    path: str | None = None
    """The interpreter, if known"""


def choose(base: Base, wanted: str | None) -> Choice:
    """
    Return the Python for ``base``.

    That is the one that is ``wanted`` (``X.Y``, ``X.Y.Z`` or the path of an interpreter), else that in the
    variable ``PATCHSET_PYTHON``, else the one that runs the tool, else the newest one of this machine.

    :raises UsageError: if the wanted one is not in the range of ``base``
    :raises PatchsetError: if there is none
    """
    wanted = wanted or os.environ.get(VARIABLE)
    if not wanted:
        if _suits(base, platform.python_version()) and _ordinary():
            return Choice(_minor(platform.python_version()), path=sys.executable)
        return _newest(base, None)
    if _VERSION.fullmatch(wanted):
        _require(base, wanted)
        return Choice(_minor(wanted), full=wanted if wanted.count(".") == 2 else None)
    path = shutil.which(os.path.expanduser(wanted))
    if path is None:
        raise UsageError(
            f"no such Python: {wanted}", "give a version, e.g. 3.12, or the path of an interpreter"
        )
    version, lacking = _probe(path)
    _require(base, version)
    _complain(path, lacking)
    return Choice(_minor(version), path=os.path.abspath(path))


def find(base: Base, choice: Choice) -> str:
    """
    Return the path of an interpreter for ``choice``.

    :raises PatchsetError: if this machine has none, or it lacks modules that Airflow needs
    """
    path = choice.path
    if path is None:
        own = platform.python_version()
        if _ordinary() and (choice.full or choice.minor) in (own, _minor(own)):
            path = sys.executable
        else:
            path = _newest(base, choice).path
            assert path is not None
    _complain(path, _probe(path)[1])
    return path


def search_path(path: str) -> str:
    """Return ``path`` with what uv must see on PATH to find all Pythons of this machine."""
    # pyenv has only stubs on PATH, which fail for all versions but the selected ones.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    directories = sorted(str(directory) for directory in pyenv.glob("*/bin"))
    return os.pathsep.join([path, *directories])


def _newest(base: Base, choice: Choice | None) -> Choice:
    """Return the newest installed Python that suits ``base``, and ``choice`` if given."""
    environment = uvtool.environment()
    environment["PATH"] = search_path(environment.get("PATH", os.defpath))
    command = [uvtool.executable(), "python", "list", "--only-installed", "--output-format", "json"]
    done = processes.run(command, env=environment, capture=True, cwd=os.path.abspath(os.sep))
    found = []
    for entry in json.loads(done.stdout or "[]"):
        version = entry["version"]
        if entry["implementation"] != "cpython" or entry["variant"] != "default" or not _suits(base, version):
            continue
        if choice is None or (choice.full or choice.minor) in (version, _minor(version)):
            found.append((Version(version), entry["path"]))
    if not found:
        wanted = f"Python {choice.full or choice.minor}" if choice else f"Python {base.python}"
        raise PatchsetError(
            f"this machine has no {wanted}, which Airflow {base.version} needs"
            if choice is None
            else f"this machine has no {wanted}",
            f"install it (uv python install, pyenv, your distribution) or give another one of {base.python} "
            f"with --python or {VARIABLE}",
        )
    version, path = max(found, key=lambda entry: entry[0])
    return Choice(_minor(str(version)), path=path)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _suits(base: Base, version: str) -> bool:
    return SpecifierSet(base.python).contains(version)


def _require(base: Base, version: str) -> None:
    if not _suits(base, version):
        raise UsageError(
            f"Airflow {base.version} does not run on Python {version}",
            f"choose one of {base.python} with --python or {VARIABLE}",
        )


def _ordinary() -> bool:
    """Return whether the tool runs on the kind of Python that the pinned wheels are for."""
    return sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def _probe(path: str) -> tuple[str, list[str]]:
    """Return the version of an interpreter, and which modules it lacks."""
    done = processes.run([path, "-I", "-c", _PROBE], capture=True)
    try:
        version, implementation, lacking = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UsageError(f"{path} is not a Python interpreter that works: {reason}") from None
    if implementation != "cpython":
        raise UsageError(f"{path} is {implementation}", "Airflow needs CPython")
    return version, lacking


def _complain(path: str, lacking: list[str]) -> None:
    if lacking:
        raise PatchsetError(
            f"{path} lacks {', '.join(lacking)}, which Airflow needs",
            f"build it with those libraries, or give another Python with --python or {VARIABLE}",
        )
