# SPDX-License-Identifier: Apache-2.0
"""
Patches an installed Airflow where it is, and brings back what was there.

git applies the series to the installed files, which have to be stock; nothing is downloaded. The journal of
a distribution (see ``change``) is in its ``.dist-info``. Its ``RECORD`` lists that and the new files, so pip
and uv remove or replace all of it with the distribution.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from patchsetlib.installs import change
from patchsetlib.installs import describe as described
from patchsetlib.installs.change import Change, Journal
from patchsetlib.installs.describe import CORE, PATCHED, Installation, Part
from patchsetlib.patches import contents
from patchsetlib.patches.base import Base
from patchsetlib.patches.contents import ABSENT, File
from patchsetlib.shell.errors import PatchsetError

JOURNAL = "localexecutor-patchset"
"""The name of a journal's directory."""

Action = tuple[str, Path]
"""``create``, ``change``, ``delete`` or ``restore``, and the file."""

_Targets = Mapping[Part, Sequence[File]]
"""The distributions that the series changes, and all files of which any patch changes something."""

# By the Python that will run it, and with the place in it where the file will be.
_COMPILE = """
import json, py_compile, sys
def compiled(source, name):
    target = source[:-2] + sys.implementation.cache_tag + ".pyc"
    return py_compile.compile(source, target, name, doraise=True)
print(json.dumps([compiled(source, name) for source, name in json.load(sys.stdin)]))
"""


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
        if (
            installation.applied() == installation.series_length
            and all(journal.complete for journal in journals)
            and {journal.place for journal in journals} <= {_journal(part).place for part in targets}
        ):
            return []
        _require_undoable(installation)
        for part, files in targets.items():
            _require_stock(part, files)
            _require_usual_form(part, files)
        actions = _restored(journals)
        actions += [(_word(f), part.site / f.path) for part in targets for f in targets[part] if f.changes]
        _require_free(installation, actions, even_while_running)
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
        _require_free(installation, actions, even_while_running)
        if not dry_run:
            change.undo(journals)
        return actions


def is_interrupted(installation: Installation) -> bool:
    """Return whether an install or uninstall was killed, and is to be run again."""
    return any(not journal.complete and not journal.foreign() for journal in _journals(installation))


@contextmanager
def _locked(python: Path) -> Iterator[Installation]:
    """
    Give the Airflow of ``python``, which no other run changes meanwhile.

    :raises PatchsetError: if there is none, or another run is at it
    """
    first = described.describe(python)
    if not first.parts:
        raise PatchsetError(
            f"{python} has no {CORE}", "name the Python that Airflow runs with: --python PATH"
        )
    # A directory that is there anyway, so that no file is left behind.
    descriptor = os.open(first.parts[0].metadata, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield described.describe_paths(first.paths, python, first.python_version)
    except BlockingIOError as e:
        raise PatchsetError(f"another run is changing {first.parts[0].site}", "wait for it") from e
    finally:
        os.close(descriptor)


def _targets(installation: Installation, asked: Base | None) -> _Targets:
    core, base = installation.part(), installation.base
    if core is None:
        raise PatchsetError(f"{installation.python} has no {CORE}", f"pip install {CORE}")
    if base is None or (asked is not None and asked.name != base.name):
        which = f"the series of {asked.name} is not" if asked else "no series here is"
        remedy = f"there is one: {base.name}" if base else "see scripts/patchset status for those there are"
        raise PatchsetError(f"{which} for {CORE} {core.version} in {core.site}", remedy)
    if installation.problems:
        raise PatchsetError(f"{core.site}: {installation.problems[0]}", "repair the installation first")
    targets = {}
    for distribution in base.distributions:
        part = installation.part(distribution.project)
        files = [file for file in contents.installed_files(base) if file.distribution == distribution]
        if part is not None and any(file.changes for file in files):
            targets[part] = files
    return targets


def _journal(part: Part) -> Journal:
    """Return the journal of a distribution, which need not exist."""
    return Journal(part.site, part.metadata / JOURNAL)


def _journals(installation: Installation) -> list[Journal]:
    """Return the journals that are there, if only what a killed run has left of one."""
    return [journal for journal in map(_journal, installation.parts) if journal.remains]


def _restored(journals: Sequence[Journal]) -> list[Action]:
    return [
        ("restore" if was_there else "delete", journal.root / path)
        for journal in journals
        for path, was_there in journal.paths.items()
    ]


def _require_undoable(installation: Installation) -> None:
    for part in installation.parts:
        journal = _journal(part)
        if changed := journal.foreign():
            raise _foreign(part, changed)
        if lost := journal.lost():
            raise PatchsetError(f"{journal.place / 'before' / lost[0]} is gone", _reinstall(part))


def _require_stock(part: Part, files: Sequence[File]) -> None:
    """Make sure that all files are stock, or will be once what was done in place is undone."""
    journal = _journal(part)
    ids = {file: journal.before(file.path) or contents.blob_id(part.site / file.path) for file in files}
    if foreign := [file.path for file, found in ids.items() if found not in file.ids]:
        raise _foreign(part, foreign)
    if any(found != file.ids[0] for file, found in ids.items()):
        remedy = f"to patch it here, first: {_reinstall(part)}"
        raise PatchsetError(f"{part.project} in {part.site} is patched already, by a wheel", remedy)


def _foreign(part: Part, changed: Sequence[str]) -> PatchsetError:
    more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
    return PatchsetError(
        f"{part.site / changed[0]}{more} is neither stock nor patched: somebody else has changed it",
        f"to have what was published: {_reinstall(part)}",
    )


def _reinstall(*parts: Part) -> str:
    pins = " ".join(f"{part.project}=={part.release}" for part in parts)
    return f"pip install --force-reinstall --no-deps {pins}"


def _require_usual_form(part: Part, files: Sequence[File]) -> None:
    """Make sure that pip and uv find what is changed, and that it is not a developer's source tree."""
    site, record, journal = part.site, part.record, _journal(part)
    for file in files:
        parent = (site / file.path).parent
        if file.ids[0] != ABSENT and file.path not in record and journal.before(file.path) is None:
            problem = f"{part.metadata / 'RECORD'} does not list {file.path}"
            raise PatchsetError(problem, f"this is no installation by pip or uv; try: {_reinstall(part)}")
        if parent.exists() and parent.resolve() != site.resolve() / parent.relative_to(site):
            problem = f"{parent} is reached through a symbolic link, and may belong to something else"
            raise PatchsetError(problem, f"to have files of its own: {_reinstall(part)}")


def _require_free(installation: Installation, actions: Sequence[Action], even_while_running: bool) -> None:
    """Make sure that all of this can be written, and that nothing runs from it."""
    directories = {next(parent for parent in path.parents if parent.is_dir()) for _, path in actions}
    directories |= {directory / "__pycache__" for directory in directories}
    directories |= {part.metadata for part in installation.parts}
    for directory in sorted(directories):
        if directory.is_dir() and not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            remedy = "run this as its owner or as root, where it is not read-only"
            raise PatchsetError(f"no permission to write to {directory}", remedy)
    if not even_while_running and (running := _processes_of(installation)):
        more = f" and {len(running) - 3} more" if running[3:] else ""
        remedy = "stop them, or give --even-while-running"
        raise PatchsetError(f"running from it: {', '.join(running[:3])}{more}", remedy)


def _processes_of(installation: Installation) -> list[str]:
    """
    Return pid and title of the processes that run from ``installation``, as far as the system tells us.

    Titles change, and the interpreter of a virtual environment is that of another one. But each Airflow has
    loaded compiled modules from there.
    """
    sites = {f"{part.site.resolve()}{os.sep}" for part in installation.parts}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
            if process.pid != os.getpid() and any(site in maps for site in sites):
                found.append(f"{process.pid} ({' '.join(process.cmdline())[:60] or process.name()})")
    return found


def _word(file: File) -> str:
    if file.ids[0] == ABSENT:
        return "create"
    return "delete" if file.ids[-1] == ABSENT else "change"


def _patch(installation: Installation, targets: _Targets) -> None:
    assert installation.base is not None
    assert installation.python is not None
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        changes = _changes(installation.base, targets, installation.python, Path(scratch))
        try:
            change.make(changes)
        except OSError as e:
            # The second one is the file that was to be written, if both are known.
            where = e.filename2 or e.filename or next(iter(targets)).site
            raise PatchsetError(
                f"{where}: {e.strerror}; nothing is patched", "see to it and try again"
            ) from e


def _changes(
    base: Base, targets: _Targets, python: Path, scratch: Path
) -> Mapping[Journal, Sequence[Change]]:
    """Make the patched files, their bytecode, and the new ``RECORD`` of each distribution."""
    sites = {file.distribution: part.site for part, files in targets.items() for file in files}
    patched = contents.patched(base, lambda file: sites[file.distribution] / file.path, scratch / "patched")
    compiled = _compile(patched, sites, python)
    found = {}
    for part, files in targets.items():
        changes = []
        # New files first, since the others import them.
        for file, new in sorted(patched, key=lambda pair: (_word(pair[0]) != "create", pair[0].path)):
            if file not in files:
                continue
            if new in compiled:
                name = f"{Path(file.path).parent}/__pycache__/{compiled[new].name}"
                changes.append(Change(name, compiled[new], derived=True))
            changes.append(Change(file.path, new))
        # First of all: whenever this is cut off, pip finds what is to be removed.
        changes.insert(0, Change(f"{part.metadata.name}/RECORD", scratch / f"{part.project}.RECORD"))
        _write_record(part, changes)
        found[_journal(part)] = changes
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


def _write_record(part: Part, changes: Sequence[Change]) -> None:
    """Write the ``RECORD`` that the first of ``changes`` is about, with the others and the journal in it."""
    with (part.metadata / "RECORD").open(encoding="utf-8", newline="") as file:
        rows = {row[0]: row for row in csv.reader(file) if row}
    for each in changes[1:]:
        if each.content is None:
            rows.pop(each.path, None)
        # uv does not list bytecode, pip does; both remove it with the module.
        elif not each.derived:
            rows[each.path] = [
                each.path,
                described.record_hash(each.content),
                str(each.content.stat().st_size),
            ]
    for path in change.names_in_journal(part.site, part.metadata / JOURNAL, changes):
        name = str(path.relative_to(part.site))
        rows[name] = [name, "", ""]
    with changes[0].content.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows.values())
