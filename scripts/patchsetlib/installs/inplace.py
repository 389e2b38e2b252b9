# SPDX-License-Identifier: Apache-2.0
"""
Patches an installed Airflow where it is, and brings back what was there.

git applies the series to the installed files, which have to be stock; nothing is downloaded. The journal of
a distribution (see ``change``) is in its ``.dist-info``. Its ``RECORD`` lists that and the new files, so pip
and uv remove or replace all of it with the distribution.
"""

from __future__ import annotations

import base64
import csv
import fcntl
import hashlib
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from patchsetlib.installs import change
from patchsetlib.installs.change import Change, Journal
from patchsetlib.installs.describe import CORE, PATCHED, Installation, Part, describe, describe_paths
from patchsetlib.patches import contents
from patchsetlib.patches.base import Base
from patchsetlib.patches.contents import ABSENT, File
from patchsetlib.shell.errors import PatchsetError

JOURNAL = "localexecutor-patchset"
"""The name of a journal's directory."""

Action = tuple[str, Path]
"""``create``, ``change``, ``delete`` or ``restore``, and the file."""

# By the Python that will run it, and with the place in it where the file will be.
_COMPILE = """
import json, py_compile, sys
def compiled(source, name):
    target = source[:-2] + sys.implementation.cache_tag + ".pyc"
    return py_compile.compile(source, target, name, doraise=True)
print(json.dumps([compiled(source, name) for source, name in json.load(sys.stdin)]))
"""


@dataclass(frozen=True)
class _Target:
    """A distribution that the series changes."""

    part: Part
    files: tuple[File, ...]
    """Those that any patch changes, if only for others to change them back."""

    @property
    def record(self) -> str:
        """The path of ``RECORD``."""
        return f"{self.part.metadata.name}/RECORD"


def install(python: Path, base: Base | None, *, dry_run: bool, even_while_running: bool) -> list[Action]:
    """
    Patch the Airflow of ``python`` with the whole series; return what was, or would be, done to its files.

    :param base: None: the one of the installed release
    :param even_while_running: although processes run from it
    :raises PatchsetError: if it cannot be; all files are then as before, or stock again if they were patched
    """
    with _locked(python) as installation:
        targets = _targets(installation, base)
        journals = _journals(installation)
        if _is_patched(installation, targets, journals):
            return []
        _require_undoable(installation)
        for target in targets:
            journal = Journal(target.part.site, _place(target.part))
            _require_stock(target, journal)
            _require_usual_form(target, journal)
        actions = [(_word(f), t.part.site / f.path) for t in targets for f in t.files if f.changes]
        actions = _restored(journals) + actions
        _require_permission(installation, actions)
        if not even_while_running:
            _require_nothing_running(installation)
        if not dry_run:
            change.undo(journals)
            _patch(installation, targets)
        return actions


def uninstall(python: Path, *, dry_run: bool, even_while_running: bool) -> list[Action]:
    """
    Bring back the files of the Airflow of ``python`` as ``install`` found them; return what was done.

    :param even_while_running: although processes run from it
    :raises PatchsetError: if they cannot be; all files are then as before
    """
    with _locked(python) as installation:
        journals = _journals(installation)
        if not journals:
            projects = {file.project for file in installation.of(PATCHED)}
            if parts := [part for part in installation.parts if part.project in projects]:
                names = " and ".join(part.project for part in parts)
                raise PatchsetError(f"patched by wheels, not by install: {names}", _reinstall(*parts))
            return []
        _require_undoable(installation)
        actions = _restored(journals)
        _require_permission(installation, actions)
        if not even_while_running:
            _require_nothing_running(installation)
        if not dry_run:
            change.undo(journals)
        return actions


def is_interrupted(installation: Installation) -> bool:
    """Return whether an install or uninstall was killed, and is to be run again."""
    return any(not journal.complete and not journal.foreign() for journal in _journals(installation))


def _patch(installation: Installation, targets: Sequence[_Target]) -> None:
    assert installation.base is not None
    assert installation.python is not None
    about = {"base": installation.base.name, "series-version": installation.base.series_version}
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        changes = _changes(installation.base, targets, installation.python, Path(scratch))
        try:
            change.make(changes, about)
        except OSError as e:
            # The second one is the file that was to be written, if both are known.
            where = e.filename2 or e.filename or targets[0].part.site
            raise PatchsetError(
                f"{where}: {e.strerror}; nothing is patched", "see to it and try again"
            ) from e


@contextmanager
def _locked(python: Path) -> Iterator[Installation]:
    """
    Give the Airflow of ``python``, which no other run changes meanwhile.

    :raises PatchsetError: if there is none, or another run is at it
    """
    first = describe(python)
    if not first.parts:
        raise PatchsetError(
            f"{python} has no {CORE}", "name the Python that Airflow runs with: --python PATH"
        )
    # A directory that is there anyway, so that no file is left behind.
    descriptor = os.open(first.parts[0].metadata, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield describe_paths(first.paths, python, first.python_version)
    except BlockingIOError as e:
        raise PatchsetError(f"another run is changing {first.parts[0].site}", "wait for it") from e
    finally:
        os.close(descriptor)


def _targets(installation: Installation, asked: Base | None) -> list[_Target]:
    core, base = installation.part(), installation.base
    if core is None:
        raise PatchsetError(f"{installation.python} has no {CORE}", f"pip install {CORE}")
    if base is None or (asked is not None and asked.name != base.name):
        wanted = f"the series of {asked.name} is" if asked else "there is no series here that is"
        remedy = f"there is one: {base.name}" if base else "see scripts/patchset status for those there are"
        what = f"{wanted} not for" if asked else f"{wanted} for"
        raise PatchsetError(f"{what} {CORE} {core.version} in {core.site}", remedy)
    if installation.problems:
        raise PatchsetError(f"{core.site}: {installation.problems[0]}", "repair the installation first")
    targets = []
    for distribution in base.distributions:
        part = installation.part(distribution.project)
        assert part is not None
        files = [file for file in contents.installed_files(base) if file.distribution == distribution]
        if any(file.changes for file in files):
            targets.append(_Target(part, tuple(files)))
    return targets


def _place(part: Part) -> Path:
    """Return where the journal of a distribution is, or would be."""
    return part.metadata / JOURNAL


def _journals(installation: Installation) -> list[Journal]:
    """Return the journals that are there, if only what a killed run has left of one."""
    journals = [Journal(part.site, _place(part)) for part in installation.parts]
    return [journal for journal in journals if journal.remains]


def _restored(journals: Sequence[Journal]) -> list[Action]:
    return [
        ("restore" if was_there else "delete", journal.root / path)
        for journal in journals
        for path, was_there in journal.paths.items()
    ]


def _is_patched(installation: Installation, targets: Sequence[_Target], journals: Sequence[Journal]) -> bool:
    """Return whether there is nothing to do: all files are patched, and no journal is of anything else."""
    return (
        installation.applied == installation.series_length
        and all(journal.complete for journal in journals)
        and {journal.place for journal in journals} <= {_place(target.part) for target in targets}
    )


def _require_undoable(installation: Installation) -> None:
    for part in installation.parts:
        journal = Journal(part.site, _place(part))
        if changed := journal.foreign():
            raise _foreign(part, changed)
        if lost := journal.lost():
            raise PatchsetError(f"{journal.place / 'before' / lost[0]} is gone", _reinstall(part))


def _require_stock(target: _Target, journal: Journal) -> None:
    """Make sure that all files are stock, or will be once the change in ``journal`` is undone."""
    site = target.part.site
    ids = [journal.before(file.path) or contents.blob_id(site / file.path) for file in target.files]
    if any(found != file.ids[0] for found, file in zip(ids, target.files, strict=True)):
        if all(found in file.ids for found, file in zip(ids, target.files, strict=True)):
            remedy = f"to patch it here, first: {_reinstall(target.part)}"
            raise PatchsetError(f"{target.part.project} in {site} is patched already, by a wheel", remedy)
        pairs = zip(ids, target.files, strict=True)
        raise _foreign(target.part, [file.path for found, file in pairs if found not in file.ids])


def _foreign(part: Part, changed: Sequence[str]) -> PatchsetError:
    more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
    return PatchsetError(
        f"{part.site / changed[0]}{more} is neither stock nor patched: somebody else has changed it",
        f"to have what was published: {_reinstall(part)}",
    )


def _reinstall(*parts: Part) -> str:
    pins = " ".join(f"{part.project}=={part.release}" for part in parts)
    return f"pip install --force-reinstall --no-deps {pins}"


def _require_usual_form(target: _Target, journal: Journal) -> None:
    """Make sure that pip and uv find what is changed, and that it is not a developer's source tree."""
    site = target.part.site
    try:
        recorded = {name for name, _ in _record_lines((site / target.record).read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        recorded = set()
    for file in target.files:
        parent = (site / file.path).parent
        if file.ids[0] != ABSENT and file.path not in recorded and journal.before(file.path) is None:
            problem = f"{site / target.record} does not list {file.path}"
            raise PatchsetError(
                problem, f"this is no installation by pip or uv; try: {_reinstall(target.part)}"
            )
        if parent.exists() and parent.resolve() != site.resolve() / parent.relative_to(site):
            problem = f"{parent} is reached through a symbolic link, and may belong to something else"
            raise PatchsetError(problem, f"to have files of its own: {_reinstall(target.part)}")


def _require_permission(installation: Installation, actions: Sequence[Action]) -> None:
    directories = {next(parent for parent in path.parents if parent.is_dir()) for _, path in actions}
    directories |= {directory / "__pycache__" for directory in directories}
    directories |= {part.metadata for part in installation.parts}
    for directory in sorted(directories):
        if directory.is_dir() and not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            if os.statvfs(directory).f_flag & os.ST_RDONLY:
                raise PatchsetError(f"{directory} is on a read-only file system", "patch it where it is made")
            raise PatchsetError(f"no permission to write to {directory}", "run this as its owner, or as root")


def _require_nothing_running(installation: Installation) -> None:
    if running := processes_of(installation):
        names = ", ".join(f"{pid} ({title})" for pid, title in running[:3])
        more = f" and {len(running) - 3} more" if running[3:] else ""
        raise PatchsetError(f"running from it: {names}{more}", "stop them, or give --even-while-running")


def processes_of(installation: Installation) -> list[tuple[int, str]]:
    """
    Return pid and title of the processes that run from ``installation``, as far as the system tells us.

    Titles change, and the interpreter of a virtual environment is that of another one. But each Airflow has
    loaded compiled modules from there.
    """
    sites = {f"{part.site.resolve()}{os.sep}" for part in installation.parts}
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with suppress(psutil.Error, OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
            if any(site in maps for site in sites):
                found.append((process.pid, " ".join(process.cmdline())[:60] or process.name()))
    return found


def _word(file: File) -> str:
    if file.ids[0] == ABSENT:
        return "create"
    return "delete" if file.ids[-1] == ABSENT else "change"


def _changes(
    base: Base, targets: Sequence[_Target], python: Path, scratch: Path
) -> Mapping[Journal, Sequence[Change]]:
    """Make the patched files, their bytecode, and the new ``RECORD`` of each distribution."""
    sites = {file.distribution: target.part.site for target in targets for file in target.files}
    patched = contents.patched(base, lambda file: sites[file.distribution] / file.path, scratch / "patched")
    compiled = _compile(patched, sites, python)
    found = {}
    for target in targets:
        site = target.part.site
        changes = []
        # New files first, since the others import them.
        for file, new in sorted(patched, key=lambda pair: (_word(pair[0]) != "create", pair[0].path)):
            if file not in target.files:
                continue
            if new in compiled:
                name = f"{Path(file.path).parent}/__pycache__/{compiled[new].name}"
                changes.append(Change(name, compiled[new], derived=True))
            changes.append(Change(file.path, new))
        journal = Journal(site, _place(target.part))
        # First of all: whenever this is cut off, pip finds what is to be removed.
        record = scratch / f"{target.part.project}.RECORD"
        changes.insert(0, Change(target.record, record))
        record.write_text(_new_record(target, changes, journal), encoding="utf-8", newline="")
        found[journal] = changes
    return found


def _compile(patched: Sequence[tuple[File, Path | None]], sites: Mapping, python: Path) -> dict[Path, Path]:
    """Return the bytecode of each patched module, made beside it."""
    command = [python.absolute(), "-E", "-s", "-B", "-c", _COMPILE]
    wanted = [
        (str(new), str(sites[file.distribution] / file.path))
        for file, new in patched
        if new is not None and new.suffix == ".py"
    ]
    done = subprocess.run(command, input=json.dumps(wanted), capture_output=True, text=True, cwd=os.sep)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise PatchsetError(f"{python} cannot compile the patched files: {last}")
    compiled = map(Path, json.loads(done.stdout))
    return {Path(source): result for (source, _), result in zip(wanted, compiled, strict=True)}


def _record_lines(text: str) -> Iterator[tuple[str, str]]:
    """Return the lines of a ``RECORD``, each with the path that it is about."""
    for line in io.StringIO(text, newline=""):
        for row in csv.reader([line]):
            yield row[0] if row else "", line


def _new_record(target: _Target, changes: Sequence[Change], journal: Journal) -> str:
    site = target.part.site
    # Not read_text: that would change the ends of lines.
    lines = dict(_record_lines((site / target.record).read_bytes().decode()))
    for each in changes[1:]:
        if each.content is None:
            lines.pop(each.path, None)
        # uv does not list bytecode, pip does; both remove it with the module.
        elif not each.derived:
            lines[each.path] = _record_line(each.path, each.content)
    for path in change.names_in_journal(site, journal.place, changes):
        name = str(path.relative_to(site))
        lines[name] = _record_line(name, None)
    return "".join(lines.values())


def _record_line(name: str, path: Path | None) -> str:
    row = [name, "", ""]
    if path is not None:
        content = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        row = [name, f"sha256={digest}", str(len(content))]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()
