# SPDX-License-Identifier: Apache-2.0
"""
Patched wheels: the published ones with the files that the series changes in place of their own.

They are not built from source: that would need Node for the UI, which the published wheel carries compiled,
and build tools whose versions nobody pinned. sdist and wheel of a release hold the same ``airflow/`` files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from patchsetlib.patches import artifacts, source
from patchsetlib.patches.base import Base, Distribution
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display, work_dir

# The time of all files in a patched wheel, 2020-01-01, so that the same series gives the same bytes.
_SOURCE_DATE_EPOCH = "1577836800"


def patched_wheels(base: Base) -> list[Path]:
    """
    Return the patched wheels of ``base``, one for each distribution that the series changes.

    They are made if there are none. Those of the same sources are the same file.

    :raises PatchsetError: if the base is no release, the series does not apply, or a wheel cannot be had
    """
    base.require_release()
    tree = source.cached_tree(base, patched=True)
    wheels = (_patched_wheel(base, distribution, tree) for distribution in base.distributions)
    return [wheel for wheel in wheels if wheel is not None]


def _patched_wheel(base: Base, distribution: Distribution, tree: Path) -> Path | None:
    sources = f"{distribution.directory}/src"
    before, after = git(
        "rev-parse", f"{source.tag_name(base)}:{sources}", f"HEAD:{sources}", cwd=tree
    ).split()
    if before == after:
        return None
    assert distribution.wheel is not None
    stock = artifacts.fetch(distribution.wheel)
    target = work_dir() / base.name / "wheels" / after[:16] / stock.name
    if not target.exists():
        with ui.step(f"making the patched wheel of {distribution.project} {distribution.version}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as scratch:
                repacked = repack(stock, tree, distribution.directory, source.tag_name(base), Path(scratch))
                os.replace(repacked, target)
    return target


def repack(stock: Path, tree: Path, directory: str, base_revision: str, scratch: Path) -> Path:
    """
    Make a wheel of ``stock`` and of what the commits of ``tree`` since ``base_revision`` change in it.

    :param directory: place of the distribution in the monorepo
    :param scratch: an empty directory for the work and for the result
    :raises PatchsetError: if the wheel is not the one that the commits are for
    """
    _wheel("unpack", stock, "--dest", scratch)
    (unpacked,) = scratch.iterdir()
    options = ("--name-status", "--no-renames", "-r", "-z")
    words = git("diff-tree", *options, base_revision, "HEAD", "--", directory, cwd=tree).split("\0")[:-1]
    for status, path in zip(words[::2], words[1::2], strict=True):
        inside = path.removeprefix(f"{directory}/")
        if inside.startswith("src/airflow/ui/") or inside in ("pyproject.toml", "hatch_build.py"):
            ui.warn(
                f"{path}: changed by the series, but a patched wheel keeps what the release was built with"
            )
        if not inside.startswith("src/"):
            continue
        target = unpacked / inside.removeprefix("src/")
        if target.exists() == (status == "A"):
            raise PatchsetError(f"{display(stock)} is not the wheel that the series is for", f"see {path}")
        if status == "D":
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree / path, target)
        target.chmod(0o644)
    _wheel("pack", unpacked, "--dest-dir", scratch)
    (wheel,) = scratch.glob("*.whl")
    return wheel


def _wheel(*args: str | Path) -> None:
    command = [sys.executable, "-I", "-m", "wheel", *args]
    variables = os.environ | {"SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise PatchsetError(
            f"wheel {args[0]} {args[1]} failed: {(done.stderr.strip().splitlines() or [''])[-1]}"
        )
