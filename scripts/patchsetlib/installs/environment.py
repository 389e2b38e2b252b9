# SPDX-License-Identifier: Apache-2.0
"""
Virtual environments with Airflow in them: stock, patched, and stock with what its unit tests need.

Each is ``work/<base>/python-<X.Y.Z>/<kind>``, made by uv of the pinned distributions. The patched one is a
stock one with the patched wheels on top. A file in it says which pins and which patched wheels it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.specifiers import SpecifierSet

from patchsetlib.installs.wheel import patched_wheels
from patchsetlib.patches.base import Base
from patchsetlib.shell import ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.paths import work_dir
from patchsetlib.shell.staging import staged

VARIABLE = "PATCHSET_PYTHON"
_STATE = "patchset.json"


def python(base: Base, patched: bool, python_version: str | None = None) -> Path:
    """
    Return the interpreter of the environment of ``base``, building or updating it first if needed.

    :param patched: with the series applied; otherwise as it was published
    :param python_version: a Python as uv takes it (``3.12``, the path of an interpreter ...); without it
        that in ``PATCHSET_PYTHON``, else the one that runs the tool, else any that suits the base
    :raises PatchsetError: if it cannot be built; nothing half-built stays behind
    """
    return _ready(base, "patched" if patched else "stock", python_version)


def test_python(base: Base, python_version: str | None = None) -> Path:  # noqa: PT028 (not a test)
    """
    Return the interpreter of the environment for unit tests: stock, with pytest and upstream's test plugin.

    The patched sources are to be put first on ``sys.path``.

    :raises PatchsetError: if it cannot be built
    """
    return _ready(base, "test", python_version)


def variables(interpreter: Path) -> dict[str, str]:
    """Return the tool's environment variables as changed by activating the environment of ``interpreter``."""
    result = dict(os.environ)
    result["VIRTUAL_ENV"] = str(interpreter.parent.parent)
    result["PATH"] = os.pathsep.join([str(interpreter.parent), os.environ.get("PATH", os.defpath)])
    return result


def _ready(base: Base, kind: str, asked: str | None) -> Path:
    base.require_release()
    request, version = _choose(base, asked or os.environ.get(VARIABLE))
    place = work_dir() / base.name / f"python-{version}" / kind
    test_pins = [base.test_constraints, base.directory / "test-unchecked.txt"]
    pins = test_pins if kind == "test" else [base.constraints]
    wheels = patched_wheels(base) if kind == "patched" else []
    wanted = {
        "pins": [_sha256(path) for path in pins],
        "wheels": {path.name.partition("-")[0]: _sha256(path) for path in wheels},
    }
    interpreter = place / "bin" / "python"
    have = _state(place) if interpreter.exists() else {}
    # A distribution that the series no longer changes has to be the published one again.
    if have.get("pins") != wanted["pins"] or not have["wheels"].keys() <= wanted["wheels"].keys():
        with ui.step(f"installing {base.title} for Python {version} ({kind})"):
            # Python would find a provider's installed sources before those of the tree under test.
            is_tested = base.is_provider and kind == "test"
            without = [f"airflow/{each.directory}" for each in base.distributions] if is_tested else []
            _build(place, request, pins, wanted | {"wheels": {}}, without)
    if _state(place) != wanted:
        with ui.step(f"installing the patched wheels of {base.name} for Python {version}"):
            _write_state(place, wanted | {"incomplete": True})
            options = ("--no-deps", "--reinstall", "--compile-bytecode", "--python", interpreter)
            uvtool.uv("pip", "install", *options, *wheels)
            _write_state(place, wanted)
    return interpreter


def _choose(base: Base, asked: str | None) -> tuple[str, str]:
    """
    Return which Python to ask uv for, and its version.

    :raises UsageError: if it is not in the range of ``base``
    """
    own = platform.python_version()
    allowed = SpecifierSet(base.python)
    if asked is None and own in allowed:
        return sys.executable, own
    request = asked or base.python
    command = [uvtool.executable(), "python", "find", "--no-project", "--system", "--show-version", request]
    variables = uvtool.environment()
    found = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, cwd=os.sep)
    version = found.stdout.strip()
    if found.returncode or version not in allowed:
        problem = f"{base.title} does not run on Python {version}" if version else f"no Python {request}"
        raise UsageError(problem, f"name one of {base.python} with --python or {VARIABLE}")
    return request, version


def _build(place: Path, request: str, pins: list[Path], state: dict, without: Sequence[str]) -> None:
    """
    Make an environment in place of the one that may be there.

    :param without: directories of site-packages to delete
    """
    shutil.rmtree(place, ignore_errors=True)
    try:
        with staged(place) as building:
            options = ("--no-project", "--allow-existing", "--prompt", f"airflow-{place.name}")
            # Relocatable, as it is moved when it is complete.
            uvtool.uv("venv", *options, "--relocatable", "--python", request, building)
            # Compiled now, or the first start of all components would do it, all at the same time.
            options = ("--require-hashes", "--compile-bytecode", "--python", building / "bin" / "python")
            uvtool.uv("pip", "sync", *options, *pins)
            for path in (p for name in without for p in building.glob(f"lib/*/site-packages/{name}")):
                shutil.rmtree(path)
            _write_state(building, state)
    except PatchsetError:
        # Another run may have made the same meanwhile.
        if _state(place) != state:
            raise


def _state(place: Path) -> dict:
    try:
        return json.loads((place / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_state(place: Path, state: dict) -> None:
    (place / _STATE).write_text(json.dumps(state), encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
