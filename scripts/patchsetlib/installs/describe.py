# SPDX-License-Identifier: Apache-2.0
"""
What an installed Airflow holds: which release, and which of its files are stock, patched or somebody else's.

Nothing is imported from it or written to it. What decides is the content of each file, not a version.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import contents, series
from patchsetlib.patches.base import Base
from patchsetlib.shell.errors import PatchsetError

CORE = "apache-airflow-core"
PROJECTS = (CORE, "apache-airflow-task-sdk")
"""What a series may change."""

STOCK = "stock"
PATCHED = "patched"
FOREIGN = "changed"
"""Neither stock nor as any patch leaves it; also a file that is missing or should not be there."""

_PATHS = "import json, sys; print(json.dumps([sys.version.split()[0], [p for p in sys.path if p]]))"


@dataclass(frozen=True)
class Part:
    """An installed distribution."""

    project: str
    version: str
    """With its local part, if it has one."""
    site: Path
    """The ``site-packages`` it is in."""
    metadata: Path
    """Its ``.dist-info``."""
    problem: str | None = None
    """Why it is not a complete installation."""

    @property
    def release(self) -> str:
        """The version without its local part."""
        return self.version.partition("+")[0]

    @property
    def record(self) -> dict[str, str]:
        """The hashes in ``RECORD``, by path below ``site``; empty if it cannot be read."""
        try:
            with (self.metadata / "RECORD").open(encoding="utf-8", newline="") as file:
                return {row[0]: row[1] for row in csv.reader(file) if len(row) == 3 and row[1]}
        except (OSError, ValueError):
            return {}


@dataclass(frozen=True)
class InstalledFile:
    """A file that the series changes, creates or deletes, as it is on disk."""

    project: str
    name: str
    """Below ``site-packages``, e.g. ``airflow/executors/local_executor.py``."""
    patches: tuple[int, ...]
    """After how many patches of the series a file has this content (0: stock); none: somebody else's."""
    exists: bool
    as_recorded: bool | None
    """Whether it is what ``RECORD`` says was installed; None if that says nothing of it."""

    @property
    def state(self) -> str:
        if not self.patches:
            return FOREIGN
        return STOCK if 0 in self.patches else PATCHED


@dataclass(frozen=True)
class Installation:
    """The Airflow of one Python."""

    python: Path | None
    """None if only its directories are known."""
    python_version: str | None
    paths: tuple[Path, ...]
    """Where modules are looked for, in order."""
    parts: tuple[Part, ...]
    """Of ``PROJECTS``, those that are there; several of one project are a broken installation."""
    base: Base | None
    """The base of the release of core; None if there is none here."""
    series_length: int
    files: tuple[InstalledFile, ...]
    """Those of the series of ``base``; empty without one."""
    problems: tuple[str, ...]
    """What is broken about the installation itself."""

    def part(self, project: str = CORE) -> Part | None:
        """Return the distribution that Python imports."""
        return next((part for part in self.parts if part.project == project), None)

    def of(self, state: str) -> list[InstalledFile]:
        """Return the files in this state."""
        return [file for file in self.files if file.state == state]

    def applied(self, *projects: str) -> int | None:
        """
        Return how many patches of the series the files have, all alike; None if no number fits them all.

        :param projects: only the files of these
        """
        files = [file for file in self.files if not projects or file.project in projects]
        fitting = set(range(self.series_length + 1)) if files else set()
        for file in files:
            fitting &= set(file.patches)
        # Not all patches change all files: what is still stock has none.
        return 0 if 0 in fitting else max(fitting, default=None)

    @property
    def commit(self) -> str | None:
        """The id of the last patch that is applied, as a commit of the series."""
        applied = self.applied()
        if not self.base or not applied:
            return None
        with suppress(OSError, IndexError):
            lines = self.base.commits_file.read_text(encoding="utf-8").splitlines()
            return lines[applied - 1].split()[0]
        return None

    @property
    def state(self) -> str | None:
        """``STOCK``, ``PATCHED`` or ``FOREIGN``, which a mixture is as well; None if there is no base."""
        if not self.files:
            return None
        applied = self.applied()
        return FOREIGN if applied is None else PATCHED if applied else STOCK


def python_on_path() -> Path:
    """
    Return the Python that runs the command airflow on PATH, else the first Python there.

    :raises PatchsetError: if there is none
    """
    candidates = []
    if command := shutil.which("airflow"):
        with suppress(OSError, UnicodeDecodeError):
            first = Path(command).open(encoding="utf-8").readline().removeprefix("#!").split()
            candidates += [Path(first[0])] if first and Path(first[0]).name.startswith("python") else []
        # Where uv and pip start it through a shell; pipx links it from somewhere else.
        candidates.append(Path(command).resolve().with_name("python"))
    candidates += [Path(found) for name in ("python3", "python") if (found := shutil.which(name))]
    for candidate in candidates:
        if candidate.exists():
            # Not resolved: a link into a virtual environment stays a link.
            return candidate.absolute()
    raise PatchsetError("no airflow and no Python on PATH", "name Airflow's Python with --python PATH")


def describe(python: Path) -> Installation:
    """
    Return what Airflow ``python`` imports. This takes as long as that Python needs to start.

    :raises PatchsetError: if ``python`` cannot be run, or if a patch file here cannot be read
    """
    # Its user site-packages belong to it; the variables and the directory of this process do not.
    command = [python.absolute(), "-E", "-B", "-c", _PATHS]
    try:
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
        version, entries = json.loads(done.stdout)
        paths = [Path(entry) for entry in entries]
    except (OSError, ValueError, TypeError, subprocess.TimeoutExpired) as e:
        raise PatchsetError(f"{python} is not a Python that runs", "name one with --python PATH") from e
    return describe_paths(paths, python, version)


def describe_paths(
    paths: Sequence[Path], python: Path | None = None, python_version: str | None = None
) -> Installation:
    """
    Return what Airflow a Python with these entries of ``sys.path`` imports, without running one.

    :raises PatchsetError: if a patch file here cannot be read
    """
    parts = [part for project in PROJECTS for path in paths for part in _parts(project, path)]
    problems = [f"{part.project} {part.version}: {part.problem}" for part in parts if part.problem]
    for project in PROJECTS:
        found = [part for part in parts if part.project == project]
        # In another directory, the first one hides the others; that is how --user works.
        beside = [part.version for part in found if part.site == found[0].site]
        if len(beside) > 1:
            problems.append(f"{project} is there more than once: {', '.join(beside)}")
    core = next((part for part in parts if part.project == CORE), None)
    released = [base for base in map(bases.load, bases.all_bases()) if base.released]
    base = core and next((base for base in released if base.version == core.release), None)
    length, files = 0, ()
    if core is not None and base is not None:
        length, files = len(series.names(base)), tuple(_files(base, parts))
        for distribution in base.distributions:
            part = next((part for part in parts if part.project == distribution.project), None)
            if part is None:
                problems.append(f"{distribution.project} is missing")
            elif part.release != distribution.version:
                wanted = f"{core.version} is released with {distribution.version}"
                problems.append(f"{part.project} is {part.version}; {core.project} {wanted}")
    return Installation(
        python, python_version, tuple(paths), tuple(parts), base, length, files, tuple(problems)
    )


def unlike_record(parts: Sequence[Part]) -> list[str]:
    """
    Return the files that a series of any base changes and that are not as their wheel has installed them.

    It is what can be said of a release that has no base here.
    """
    every = [bases.load(name) for name in bases.all_bases()]
    names = {(f.distribution.project, f.path) for base in every for f in contents.installed_files(base)}
    changed = []
    for part in parts:
        recorded = part.record
        for name in sorted(name for project, name in names if project == part.project and name in recorded):
            path = part.site / name
            if not path.is_file() or record_hash(path) != recorded[name]:
                changed.append(name)
    return changed


def _parts(project: str, site: Path) -> list[Part]:
    found = []
    for metadata in sorted(site.glob(f"{project.replace('-', '_')}-*.dist-info")):
        version = metadata.name.removesuffix(".dist-info").partition("-")[2]
        problem = None
        if not (metadata / "METADATA").is_file():
            problem = "its METADATA is missing"
        elif not (site / "airflow").is_dir():
            problem = "its files are not in site-packages, as if it was installed in editable form"
        found.append(Part(project, version, site, metadata, problem))
    return found


def _files(base: Base, parts: Sequence[Part]) -> list[InstalledFile]:
    found = {part.project: (part.site, part.record) for part in reversed(parts)}
    files = []
    for file in contents.installed_files(base):
        project = file.distribution.project
        if project not in found:
            continue
        site, record = found[project]
        path = site / file.path
        try:
            blob = contents.blob_id(path)
        except OSError as e:
            raise PatchsetError(
                f"{path} cannot be read: {e.strerror}", "run this as its owner, or as root"
            ) from e
        patches = tuple(number for number, known in enumerate(file.ids) if known == blob)
        exists = blob != contents.ABSENT
        as_recorded = None
        if recorded := record.get(file.path):
            as_recorded = exists and recorded == record_hash(path)
        files.append(InstalledFile(project, file.path, patches, exists, as_recorded))
    return files


def record_hash(path: Path) -> str:
    """Return the hash of a file as it stands in a ``RECORD``."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
