# SPDX-License-Identifier: Apache-2.0
"""
The patched wheel: the published one with the files that the series changes in place of its own.

It is not built from source: that would need Node for the UI, which the published wheel carries compiled, and
build tools whose versions nobody pinned. sdist and wheel of a release hold the same ``airflow/`` files.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import csv
import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from patchsetlib.patches import artifacts, source
from patchsetlib.patches.base import Base
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display, work_dir

# Raise it to have all patched wheels built anew when this module changes what it writes.
_FORMAT = 1


def series_key(base: Base) -> str:
    """
    Return a hash that changes with the content of the series; nothing but the patch files is read.

    :raises PatchsetError: if a listed patch cannot be read
    """
    if not base.series_file.exists():
        ui.warn(f"{display(base.series_file)} does not exist: patched is the same as stock")
        return "none"
    return source.key(base, patched=True)


def patched_wheel(base: Base) -> Path:
    """
    Return the path of the patched wheel of ``base``, made if there is none.

    :raises PatchsetError: if the series does not apply, or the published wheel cannot be had
    """
    stock = artifacts.fetch(base.wheel)
    key = series_key(base)
    path = work_dir() / base.name / "wheels" / f"{key}-{_FORMAT}" / stock.name
    if path.exists():
        return path
    changed: dict[str, bytes | None] = {}
    if key != "none":
        tree = source.cached_tree(base, patched=True)
        changed = changes(tree, source.tag_name(base), base.package)
    with ui.step(f"making the patched wheel of {base.name}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(handle, "w+b") as file:
                write(stock, changed, file)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return path


def changes(tree: Path, base_revision: str, package: str) -> dict[str, bytes | None]:
    """
    Return what the commits of a source tree change in its wheel: path in the wheel to new content.

    The content is ``None`` for a removed file. Says which changes a wheel cannot show.

    :param package: directory of the distribution in the monorepo
    """
    listed = git(
        "diff", "--name-status", "--no-renames", "-z", base_revision, "HEAD", "--", package, cwd=tree
    )
    words = listed.split("\0")[:-1]
    found: dict[str, bytes | None] = {}
    for status, path in zip(words[::2], words[1::2], strict=True):
        inside = path.removeprefix(f"{package}/")
        if inside.startswith("src/"):
            found[inside.removeprefix("src/")] = None if status == "D" else (tree / path).read_bytes()
            if inside.startswith("src/airflow/ui/"):
                ui.warn(f"{path}: changed by the series, but the compiled UI stays that of the release")
        elif inside in ("pyproject.toml", "hatch_build.py"):
            ui.warn(f"{path}: changed by the series, but dependencies and build stay those of the release")
    return found


def write(stock: Path, changed: dict[str, bytes | None], file: io.BufferedIOBase) -> None:
    """
    Write the wheel ``stock`` with the files in ``changed`` added, replaced or (``None``) removed.

    The result is a valid wheel, its ``RECORD`` included, and the same bytes for the same input.

    :raises PatchsetError: if a file to remove or the ``RECORD`` is not in the wheel, or it is no wheel
    """
    try:
        with zipfile.ZipFile(stock) as old, zipfile.ZipFile(file, "w") as new:
            infos = {info.filename: info for info in old.infolist()}
            records = [name for name in infos if name.endswith(".dist-info/RECORD")]
            missing = [name for name, content in changed.items() if content is None and name not in infos]
            if len(records) != 1 or missing:
                what = f"no {', '.join(missing)}" if missing else "no RECORD"
                raise PatchsetError(f"{stock.name} is not the wheel the series was made for: {what}")
            (record,) = records
            rows = []
            for name in _order(infos, changed, record):
                content = changed[name] if name in changed else old.read(name)
                assert content is not None
                info = copy.copy(infos[name]) if name in infos else _like(infos[record], name)
                new.writestr(info, content)
                rows.append((name, _hash(content), str(len(content))))
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
            new.writestr(copy.copy(infos[record]), text.getvalue())
    except zipfile.BadZipFile as e:
        raise PatchsetError(f"{display(stock)}: {e}", "delete it and try again") from e


def _order(infos: Iterable[str], changed: dict[str, bytes | None], record: str) -> list[str]:
    """Return the files to write; the metadata comes last, as the wheel specification recommends."""
    names = [name for name in infos if name != record and changed.get(name, b"") is not None]
    added = sorted(name for name, content in changed.items() if content is not None and name not in names)
    metadata = record.removesuffix("RECORD")
    first = [name for name in names if not name.startswith(metadata)]
    return first + added + [name for name in names if name.startswith(metadata)]


def _like(model: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    info = copy.copy(model)
    info.filename = info.orig_filename = name
    return info


def _hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"sha256={digest}"
