# SPDX-License-Identifier: Apache-2.0
"""
Patched wheels: the published ones with the files that the series changes in place of their own.

They are not built from source: that would need Node for the UI, which the published wheel carries compiled,
and build tools whose versions nobody pinned. sdist and wheel of a release hold the same ``airflow/`` files.

Their version has a local part. ``==3.1.3`` of other distributions holds for it, and pip takes it for newer.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from patchsetlib.patches import artifacts, contents, source
from patchsetlib.patches.base import Base, Distribution
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import work_dir

# The time of all files in a patched wheel, 2020-01-01, so that the same series gives the same bytes.
_SOURCE_DATE_EPOCH = "1577836800"


def patched_wheels(base: Base) -> list[Path]:
    """
    Return the patched wheels of ``base``, one for each distribution that the series changes.

    They are made if there are none. Those of the same files are the same, byte for byte.

    :raises PatchsetError: if the base is no release, the series does not apply, or a wheel cannot be had
    """
    base.require_release()
    files = [file for file in contents.installed_files(base) if file.changes]
    changed = [each for each in base.distributions if any(file.distribution == each for file in files)]
    place = work_dir() / base.name / "wheels" / _key(base)
    targets = [place / _name(base, distribution) for distribution in changed]
    if not all(target.exists() for target in targets):
        for path in contents.changed_files(base):
            inside = path.partition("/")[2]
            if inside.startswith("src/airflow/ui/") or inside in ("pyproject.toml", "hatch_build.py"):
                what = "changed by the series, but a patched wheel keeps what the release was built with"
                ui.warn(f"{path}: {what}")
        names = " and ".join(f"{each.project} {each.version}" for each in changed)
        with ui.step(f"making patched wheels of {names}"):
            _make(base, changed, targets)
    return targets


def _key(base: Base) -> str:
    """Return a short hash of all that the patched wheels are made from."""
    parts = [source.key(base, patched=True), *(str(each.wheel) for each in base.distributions)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _name(base: Base, distribution: Distribution) -> str:
    project = distribution.project.replace("-", "_")
    return f"{project}-{distribution.version}{base.local_version}-py3-none-any.whl"


def _make(base: Base, distributions: Sequence[Distribution], targets: Sequence[Path]) -> None:
    place = targets[0].parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as directory:
        scratch = Path(directory)
        unpacked = {}
        for distribution in distributions:
            assert distribution.wheel is not None
            _wheel("unpack", artifacts.fetch(distribution.wheel), "--dest", scratch / distribution.project)
            (unpacked[distribution],) = (scratch / distribution.project).iterdir()
        patched = contents.patched(
            base, lambda file: unpacked[file.distribution] / file.path, scratch / "patched"
        )
        for file, new in patched:
            target = unpacked[file.distribution] / file.path
            if new is None:
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(new, target)
            target.chmod(0o644)
        for distribution, target in zip(distributions, targets, strict=True):
            _set_version(unpacked[distribution], f"{distribution.version}{base.local_version}")
            _wheel("pack", unpacked[distribution], "--dest-dir", scratch)
            os.replace(scratch / target.name, target)


def _set_version(unpacked: Path, version: str) -> None:
    """Give an unpacked wheel another version; ``wheel pack`` makes ``RECORD`` and its name of that."""
    (metadata,) = unpacked.glob("*.dist-info")
    file = metadata / "METADATA"
    text = file.read_bytes()
    file.write_bytes(re.sub(rb"^Version: .*$", f"Version: {version}".encode(), text, count=1, flags=re.M))
    metadata.rename(unpacked / f"{metadata.name.partition('-')[0]}-{version}.dist-info")


def _wheel(*args: str | Path) -> None:
    command = [sys.executable, "-I", "-m", "wheel", *args]
    variables = os.environ | {"SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise PatchsetError(
            f"wheel {args[0]} {args[1]} failed: {(done.stderr.strip().splitlines() or [''])[-1]}"
        )
