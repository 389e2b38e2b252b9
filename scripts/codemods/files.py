# SPDX-License-Identifier: Apache-2.0
"""Python files below some paths: found, read all before any is written, and written all or none."""

from __future__ import annotations

import ast
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import libcst as cst

from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError

# For files that were taken out of Airflow's repository.
_AIRFLOW = ("--isolated", "--line-length", "110")


class BadInput(PatchsetError):
    """A path that cannot be read as Python; nothing has been written."""

    exit_code = 2


def find(paths: Iterable[Path | str]) -> list[Path]:
    """
    Return the files: those named, and all ``*.py`` below the directories named, sorted, each once.

    Directories whose names start with a dot are left out.

    :raises BadInput: if a path does not exist
    """
    found: dict[Path, Path] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            for directory, below, names in os.walk(path):
                below[:] = sorted(
                    name for name in below if not name.startswith(".") and name != "__pycache__"
                )
                for name in sorted(names):
                    if name.endswith(".py"):
                        one = Path(directory, name)
                        if one.exists():
                            found.setdefault(one.resolve(), one)
        elif path.exists():
            found.setdefault(path.resolve(), path)
        else:
            raise BadInput(f"{path}: no such file or directory", "nothing was changed; check the path")
    return list(found.values())


def read(path: Path, words: Sequence[re.Pattern[bytes]]) -> tuple[bytes, cst.Module | None]:
    """
    Return what a file holds, and its syntax tree if it may have something to change: if it has all words.

    :raises BadInput: if it cannot be read, or is not valid Python
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror}", "nothing was changed; make it readable") from e
    if all(word.search(data) for word in words):
        return data, parse(path, data)
    # The same result, but faster; a Python too old for the syntax of a file has not the last word.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(data)
    except (SyntaxError, ValueError):
        parse(path, data)
    return data, None


def parse(path: Path, data: bytes) -> cst.Module:
    """
    Return the syntax tree.

    :raises BadInput: if it is not valid Python
    """
    try:
        return cst.parse_module(data)
    except cst.ParserSyntaxError as e:
        raise BadInput(
            f"{path}:{e.raw_line}: not valid Python: {e.message}",
            "nothing was changed; mend it, or leave it out",
        ) from e
    except (UnicodeDecodeError, LookupError, SyntaxError) as e:
        raise BadInput(f"{path}: {e}", "nothing was changed; save it as UTF-8, or leave it out") from e


def write(changes: Mapping[Path, bytes]) -> None:
    """
    Write files, all or none.

    A file that was laid out as ``ruff format`` does it, with its project's settings or with those of Airflow,
    is laid out so again.

    :param changes: what each file shall hold
    :raises BadInput: if one cannot be written
    """
    made: dict[Path, Path] = {}
    try:
        for path, after in changes.items():
            target = path.resolve()
            made[target] = _beside(target, after)
            _format(target, made[target])
        for target in made:
            if not os.access(target, os.W_OK):
                raise PermissionError(13, "not writable", str(target))
        for target, temporary in made.items():
            os.replace(temporary, target)
    except OSError as e:
        raise BadInput(
            f"{e.filename or 'cannot write'}: {e.strerror}", "nothing was changed; make it writable"
        ) from e
    finally:
        for temporary in made.values():
            with suppress(FileNotFoundError):
                temporary.unlink()


def _beside(target: Path, data: bytes) -> Path:
    """Write to a new file in the same directory, with the same permissions."""
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chmod(name, target.stat().st_mode & 0o7777)
    return Path(name)


def _format(target: Path, temporary: Path) -> None:
    """Lay out ``temporary`` by the settings by which ``target`` is laid out, if ruff knows them."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        return
    for settings in ((), _AIRFLOW):
        command = [ruff, "format", "--no-cache", *settings]
        if _succeeds([*command, "--check", target]):
            _succeeds([*command, temporary])
            return


def _succeeds(command: Sequence[Path | str]) -> bool:
    return processes.run(command, capture=True).returncode == 0
