# SPDX-License-Identifier: Apache-2.0
"""
Virtual environments with Airflow in them: stock, patched, and stock with what its unit tests need.

Each has its own directory under ``work/<base>/python-<X.Y>/``, and is complete if it has its stamp.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.installs import interpreters, overlay
from patchsetlib.patches import artifacts
from patchsetlib.patches.base import Base
from patchsetlib.shell import ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display, work_dir

_STAMP = ".patchset.json"
# Raise it to have all environments built anew when this module changes what it puts there.
_FORMAT = 1


def python(base: Base, patched: bool, python_version: str | None = None) -> Path:
    """
    Return the interpreter of the environment of ``base``, building or updating it first if needed.

    :param patched: with the series applied; otherwise as it was published
    :param python_version: ``X.Y``, ``X.Y.Z`` or the path of an interpreter; see ``interpreters.choose``
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
    result.pop("PYTHONHOME", None)
    result["VIRTUAL_ENV"] = str(interpreter.parent.parent)
    result["PATH"] = os.pathsep.join([str(interpreter.parent), os.environ.get("PATH", os.defpath)])
    return result


def _ready(base: Base, kind: str, python_version: str | None) -> Path:
    _ = base.release  # before anything else is missing
    choice = interpreters.choose(base, python_version)
    place = work_dir() / base.name / f"python-{choice.minor}" / kind
    wanted = _wanted(base, kind, place)
    if _is_current(place, wanted, choice, python_version):
        return _interpreter(place)
    with _locked(place) as lock:
        have = _stamp(place)
        # Another run may have built it while this one waited.
        if not _is_current(place, wanted, choice, python_version):
            try:
                if have.get("fixed") == wanted["fixed"] and _same_python(place, have, choice, python_version):
                    _exchange(base, place, have, wanted, lock)
                else:
                    _build(base, kind, place, wanted, choice, lock)
            except BaseException:
                # Without a stamp it is half-built; with one it is still what it was before.
                if not (place / _STAMP).exists():
                    _remove(place)
                raise
    return _interpreter(place)


def _wanted(base: Base, kind: str, place: Path) -> dict:
    """Return what the stamp of an up-to-date environment says, as far as the repository decides it."""
    lock_file = _lock_file(base, kind)
    try:
        pinned = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    except OSError as e:
        raise PatchsetError(f"{display(lock_file)}: {e.strerror}", "restore it with git") from e
    return {
        # Scripts hold the path of their interpreter, so an environment that was moved is no longer good.
        "fixed": {"format": _FORMAT, "place": str(place), "pinned": pinned},
        "series": overlay.series_key(base) if kind == "patched" else None,
    }


def _lock_file(base: Base, kind: str) -> Path:
    return base.test_constraints if kind == "test" else base.constraints


def _stamp(place: Path) -> dict:
    try:
        return json.loads((place / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _is_current(place: Path, wanted: dict, choice: interpreters.Choice, asked: str | None) -> bool:
    have = _stamp(place)
    return all(have.get(name) == value for name, value in wanted.items()) and _same_python(
        place, have, choice, asked
    )


def _same_python(place: Path, have: dict, choice: interpreters.Choice, asked: str | None) -> bool:
    """Return whether the environment's Python still exists, and is the one that was asked for."""
    if not _interpreter(place).exists():
        return False
    if choice.full is not None:
        return have.get("python") == choice.full
    if choice.path is not None and (asked or os.environ.get(interpreters.VARIABLE)):
        return have.get("interpreter") == choice.path
    return True


@contextmanager
def _locked(place: Path) -> Iterator[int]:
    """Hold the lock for building at ``place``; wait for it if another run has it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.parent / f".{place.name}.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ui.info(f"waiting for another run of this tool that builds {display(place)}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _build(base: Base, kind: str, place: Path, wanted: dict, choice: interpreters.Choice, lock: int) -> None:
    """Build the environment from nothing."""
    interpreter = interpreters.find(base, choice)
    wheel = overlay.patched_wheel(base) if kind == "patched" else None
    _remove(place)
    log = _log(place)
    log.unlink(missing_ok=True)
    with ui.step(f"installing Airflow {base.version} for Python {choice.minor} ({kind})"):
        prompt = f"airflow-{base.name}-{kind}"
        options = ("--no-project", "--prompt", prompt, "--python", interpreter)
        uvtool.uv("venv", *options, place, log=log, hold=[lock])
        # The lock file is complete, so nothing is resolved: what gets installed is exactly what it lists.
        _install(place, "--require-hashes", "--requirements", _lock_file(base, kind), lock=lock)
        if wheel is not None:
            _install(place, "--reinstall", wheel, lock=lock)
        if kind != "test":
            # Upstream's test plugin is pinned to older versions of what it uses, so not there.
            uvtool.uv("pip", "check", "--python", _interpreter(place), log=log, hold=[lock])
        found = {"interpreter": interpreter, "python": _python_version(place)}
        _finish(base, place, wanted | found, wheel)


def _exchange(base: Base, place: Path, have: dict, wanted: dict, lock: int) -> None:
    """Install the wheel of a series that has changed since the environment was built."""
    wheel = overlay.patched_wheel(base)
    stamp = have | wanted
    if have.get("wheel") == artifacts.sha256(wheel):
        # Only messages or tests of the patches have changed.
        _write_stamp(place, stamp)
        return
    (place / _STAMP).unlink()
    with ui.step(f"installing the changed series {base.name} for Python {have['python']}"):
        _install(place, "--reinstall", wheel, lock=lock)
        _finish(base, place, stamp, wheel)


def _install(place: Path, *args: str | Path, lock: int) -> None:
    # Compiled now, since otherwise the first start of every component would do it, all at the same time.
    options = ("--python", _interpreter(place), "--no-deps", "--compile-bytecode")
    uvtool.uv("pip", "install", *options, *args, log=_log(place), hold=[lock])


def _finish(base: Base, place: Path, stamp: dict, wheel: Path | None) -> None:
    damaged = damaged_files(_site_packages(place), base.wheel.project)
    if damaged:
        raise PatchsetError(
            f"{len(damaged)} installed files are not as their RECORD says, e.g. {damaged[0]}",
            "the file system or uv's cache is damaged; try again after: uv cache clean apache-airflow-core",
        )
    _write_stamp(place, stamp | {"wheel": artifacts.sha256(wheel) if wheel else base.wheel.sha256})


def damaged_files(site_packages: Path, project: str) -> list[str]:
    """
    Return the files of an installed distribution that differ from what its ``RECORD`` says, or are missing.

    :raises PatchsetError: if it is not installed there
    """
    found = list(importlib.metadata.distributions(name=project, path=[str(site_packages)]))
    if len(found) != 1:
        raise PatchsetError(f"{display(site_packages)} has {len(found)} installations of {project}, not one")
    damaged = []
    for file in found[0].files or []:
        if file.hash is None:
            continue
        try:
            digest = hashlib.new(file.hash.mode, Path(file.locate()).read_bytes()).digest()
        except OSError:
            digest = b""
        if urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            damaged.append(str(file))
    return damaged


def _write_stamp(place: Path, stamp: dict) -> None:
    temporary = place / f"{_STAMP}.new"
    temporary.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, place / _STAMP)


def _interpreter(place: Path) -> Path:
    return place / "bin" / "python"


def _site_packages(place: Path) -> Path:
    (path,) = place.glob("lib/python*/site-packages")
    return path


def _python_version(place: Path) -> str:
    lines = (place / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split(" = ", 1) for line in lines if " = " in line)
    return settings["version_info"]


def _remove(place: Path) -> None:
    (place / _STAMP).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)


def _log(place: Path) -> Path:
    return place.parent / f"{place.name}.log"
