# SPDX-License-Identifier: Apache-2.0
"""
Changes installed files so that every byte can be brought back, whenever the change is cut off.

What is needed to undo a change is complete and on disk before the first file is touched. From then on there
are only renames. So a change that has not come to its end is always undone, never gone on with.

A journal is a directory on the file system of the files::

    journal.json    what the change is; without it, nothing has been changed, or all is as it was again
    before/PATH     the originals: hard links to them where possible, so that all about them stays as it is
    after/PATH      the new files that have not got their places yet; gone when the change is complete
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches.contents import ABSENT, blob_id
from patchsetlib.shell.errors import PatchsetError

_JOURNAL = "journal.json"


@dataclass(frozen=True)
class Change:
    """A file that gets another content."""

    path: str
    """Below the root of the files."""
    content: Path | None
    """The file with the new content, which is copied with its modification time; None: there is none."""
    derived: bool = False
    """Whether somebody may change it meanwhile, as Python does with bytecode; it is undone all the same."""


@dataclass(frozen=True)
class _Entry:
    path: str
    before: str
    """git's blob id, or ``ABSENT``."""
    after: str
    derived: bool


class Journal:
    """
    The change of some files below ``root``; all there is to it is in the directory ``place``.

    :param place: need not exist; its parent is on the file system of the files
    :raises PatchsetError: if there is a journal that cannot be read
    """

    def __init__(self, root: Path, place: Path):
        self.root = root
        self.place = place
        self._entries: list[_Entry] = []
        self._directories: list[str] = []
        try:
            data = json.loads((place / _JOURNAL).read_bytes())
            self._entries = [_Entry(**entry) for entry in data["files"]]
            self._directories = data["directories"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise PatchsetError(
                f"{place / _JOURNAL} cannot be read: {e}", "reinstall Airflow to get rid of it"
            ) from e

    @property
    def remains(self) -> bool:
        """Whether there is anything, if only what was left of a run that was killed."""
        return os.path.lexists(self.place)

    @property
    def complete(self) -> bool:
        """Whether the whole change has been made, and all files are as it made them."""
        return (
            bool(self._entries)
            and not (self.place / "after").exists()
            and all(blob_id(self.root / e.path) == e.after for e in self._entries if not e.derived)
        )

    @property
    def paths(self) -> dict[str, bool]:
        """The files that are changed, by their path below the root, and whether each was there before."""
        return {entry.path: entry.before != ABSENT for entry in self._entries if not entry.derived}

    def before(self, path: str) -> str | None:
        """Return git's id of a file before the change; None if the change is not about that file."""
        return next((entry.before for entry in self._entries if entry.path == path), None)

    def foreign(self) -> list[str]:
        """Return the paths of the files that are neither as before the change nor as after it."""
        return [
            entry.path
            for entry in self._entries
            if not entry.derived and blob_id(self.root / entry.path) not in (entry.before, entry.after)
        ]

    def lost(self) -> list[str]:
        """Return the paths of the originals that are neither in their places nor kept."""
        return [
            entry.path
            for entry in self._entries
            if not entry.derived
            and entry.before != ABSENT
            and not os.path.lexists(self.place / "before" / entry.path)
            and blob_id(self.root / entry.path) != entry.before
        ]

    def prepare(self, changes: Sequence[Change]) -> None:
        """
        Write all that the change and its undoing need, but for the journal itself: no file is touched yet.

        Of a module, the bytecode that there is goes with it; ``changes`` may have other bytecode.

        :param changes: in the order to make them; the first one must be of a file that exists
        :raises OSError: if something cannot be written
        """
        changes = _with_bytecode(self.root, changes)
        self._discard()
        for name in ("before", "after"):
            (self.place / name).mkdir(parents=True)
        model = (self.root / changes[0].path).lstat()
        for change in changes:
            original = self.root / change.path
            backup, new = (self.place / name / change.path for name in ("before", "after"))
            exists = os.path.lexists(original)
            if exists:
                backup.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(original, backup)
            if change.content is not None:
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(change.content, new)
                times = change.content.stat()
                os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
                # Of a symbolic link, as an installer may make instead of files, the owner alone is of use.
                _set(new, original.stat() if exists else model)
                _sync(new)
            # Not of the backup: a symbolic link may lead nowhere from there.
            self._entries.append(_Entry(change.path, blob_id(original), blob_id(new), change.derived))
        missing = {
            p for c in changes if c.content for p in Path(c.path).parents if not (self.root / p).exists()
        }
        self._directories = [str(path) for path in sorted(missing)]
        for directory, _, _ in os.walk(self.place):
            _set(Path(directory), self.place.parent.stat())
            _sync(Path(directory))

    def begin(self) -> None:
        """Write the journal: from here on, what a run that is cut off leaves behind is undone."""
        temporary = self.place / f"{_JOURNAL}.new"
        entries = [vars(entry) for entry in self._entries]
        data = {"files": entries, "directories": self._directories}
        temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
        _set(temporary, (self.root / self._entries[0].path).stat())
        _sync(temporary)
        os.replace(temporary, self.place / _JOURNAL)
        _sync(self.place)
        _sync(self.place.parent)

    def make(self) -> None:
        """Put all new files into their places."""
        for name in self._directories:
            directory = self.root / name
            directory.mkdir(exist_ok=True)
            _set(directory, directory.parent.stat())
        for entry in self._entries:
            target = self.root / entry.path
            if entry.after == ABSENT:
                target.unlink(missing_ok=True)
            else:
                os.replace(self.place / "after" / entry.path, target)
        self._sync_files()
        shutil.rmtree(self.place / "after")

    def restore(self) -> None:
        """Put the originals into their places; may be called again if it was cut off. The journal stays."""
        for entry in reversed(self._entries):
            target, backup = self.root / entry.path, self.place / "before" / entry.path
            if entry.before == ABSENT:
                target.unlink(missing_ok=True)
            elif os.path.lexists(backup):
                # Does nothing where they are one file, since that is what they were at first.
                os.replace(backup, target)
        originals = {entry.path for entry in self._entries if entry.before != ABSENT}
        for entry in self._entries:
            for bytecode in _bytecode_of(self.root, entry.path):
                if bytecode not in originals:
                    (self.root / bytecode).unlink(missing_ok=True)
        for name in reversed(self._directories):
            for directory in (self.root / name / "__pycache__", self.root / name):
                with suppress(OSError):  # not there, or somebody has put something into it
                    directory.rmdir()
        self._sync_files()

    def end(self) -> None:
        """Remove the journal."""
        with suppress(FileNotFoundError):
            (self.place / _JOURNAL).unlink()
            _sync(self.place)
        self._discard()

    def _discard(self) -> None:
        if self.remains:
            shutil.rmtree(self.place)
        self._entries, self._directories = [], []

    def _sync_files(self) -> None:
        for directory in {(self.root / entry.path).parent for entry in self._entries}:
            if directory.is_dir():
                _sync(directory)


def names_in_journal(root: Path, place: Path, changes: Sequence[Change]) -> list[Path]:
    """Return the files that a journal at ``place`` consists of once the change is complete."""
    wanted = _with_bytecode(root, changes)
    originals = [change.path for change in wanted if os.path.lexists(root / change.path)]
    return [place / _JOURNAL, *(place / "before" / path for path in originals)]


def _bytecode_of(root: Path, path: str) -> Iterator[str]:
    """Return the compiled forms of a file that are there, for whatever Python, below ``root``."""
    module = Path(path)
    if module.suffix == ".py":
        cache = module.parent / "__pycache__"
        # Not a pattern with the module's name in it: that may hold what is special there.
        for found in sorted((root / cache).glob("*.pyc")):
            if found.name.startswith(f"{module.stem}."):
                yield str(cache / found.name)


def _with_bytecode(root: Path, changes: Sequence[Change]) -> list[Change]:
    """Return ``changes`` and, before each module, that its bytecode goes for which they have no other."""
    known = {change.path for change in changes}
    found = []
    for change in changes:
        stale = [path for path in _bytecode_of(root, change.path) if path not in known]
        found += [*(Change(path, None, derived=True) for path in stale), change]
    return found


def make(changes: Mapping[Journal, Sequence[Change]]) -> None:
    """
    Make changes, each with its journal: all or none of them.

    :param changes: in the order to make them; the first one for a journal must be of a file that exists
    :raises OSError: if one cannot be made; all files are then as before
    :raises PatchsetError: if that cannot be undone either
    """
    try:
        for journal, wanted in changes.items():
            journal.prepare(wanted)
        for journal in changes:
            journal.begin()
        for journal in changes:
            journal.make()
    except BaseException:
        # As they are on disk: what was only being prepared is nothing to undo.
        try:
            undo([Journal(journal.root, journal.place) for journal in changes])
        except OSError as e:
            raise PatchsetError(
                f"cannot undo what was begun: {e}", "run uninstall when that is mended"
            ) from e
        raise


def undo(journals: Sequence[Journal]) -> None:
    """
    Undo changes, complete or not, and remove the journals: all or none of them.

    :raises PatchsetError: if somebody has changed a file since, or an original is lost
    """
    for journal in journals:
        if damaged := [*journal.foreign(), *journal.lost()]:
            raise PatchsetError(f"{journal.root / damaged[0]} cannot be restored", "reinstall Airflow")
    for journal in journals:
        journal.restore()
    for journal in journals:
        journal.end()


def _link_or_copy(original: Path, backup: Path) -> None:
    try:
        os.link(original, backup, follow_symlinks=False)
    except OSError:  # a file system without links, or somebody else's file
        shutil.copy2(original, backup, follow_symlinks=False)
        if not backup.is_symlink():
            _set(backup, original.stat())
            _sync(backup)


def _set(path: Path, model: os.stat_result) -> None:
    """Give ``path`` the owner and the mode of ``model``, as far as the system lets us."""
    with suppress(PermissionError):
        os.chown(path, model.st_uid, model.st_gid)
    with suppress(PermissionError):
        os.chmod(path, stat.S_IMODE(model.st_mode))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
