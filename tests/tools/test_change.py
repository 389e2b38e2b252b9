# SPDX-License-Identifier: Apache-2.0
"""Changes of installed files: cut off or failing at every step, they are undone to the last byte."""

from __future__ import annotations

import errno
import functools
import os
import py_compile
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sampleset import snapshot

from patchsetlib.installs import change
from patchsetlib.installs.change import Change, Journal
from patchsetlib.shell.errors import PatchsetError

# All that changes a file system below the files.
CALLS = ("chmod", "chown", "link", "mkdir", "open", "replace", "rmdir", "unlink", "utime")
TAG = sys.implementation.cache_tag


class Site:
    """Two distributions in one directory, and how they are to be changed."""

    def __init__(self, directory: Path):
        self.root = directory / "site packages"
        self.cache = directory / "cache"
        new = directory / "new"
        self.changes = {}
        for name in ("one", "two"):
            info = f"{name}.dist-info"
            self.write(f"{info}/RECORD", "record\n")
            for module in ("changed", "deleted", "other") if name == "one" else ("changed",):
                self.write(f"airflow/{name}/{module}.py", f"VALUE = '{module}'\n")
                source = self.root / "airflow" / name / f"{module}.py"
                for level in (0, 1):
                    py_compile.compile(str(source), optimize=level, doraise=True)
            self.write(f"airflow/{name}/config.yml", "value: old\n")
            (self.root / "airflow" / name / "config.yml").chmod(0o600)
            contents = {
                f"{info}/RECORD": "new record\n",
                f"airflow/{name}/fresh/__pycache__/created.{TAG}.pyc": "bytecode",
                f"airflow/{name}/fresh/created.py": "VALUE = 'created'\n",
                f"airflow/{name}/__pycache__/changed.{TAG}.pyc": "bytecode",
                f"airflow/{name}/changed.py": "VALUE = 'patched'\n",
                f"airflow/{name}/config.yml": "value: new\n",
                f"airflow/{name}/deleted.py": None,
            }
            if name == "two":
                contents = {
                    path: text for path, text in contents.items() if re.search("RECORD|created|changed", path)
                }
            self.changes[info] = []
            for path, text in contents.items():
                if text is not None:
                    (new / path).parent.mkdir(parents=True, exist_ok=True)
                    (new / path).write_text(text, encoding="utf-8")
                content = None if text is None else new / path
                self.changes[info].append(Change(path, content, derived=path.endswith(".pyc")))
        # As uv does; whoever writes through a link changes the cache and other environments.
        shutil.copytree(self.root, self.cache, copy_function=os.link)
        self.cached = snapshot(self.cache)

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        os.utime(target, ns=(0, 1_600_000_000_123_456_789))

    def journals(self) -> list[Journal]:
        return [Journal(self.root, self.root / info / "journal") for info in self.changes]

    def make(self) -> None:
        change.make(dict(zip(self.journals(), self.changes.values(), strict=True)))

    def undo(self) -> None:
        change.undo(self.journals())


def without_inodes(root: Path) -> dict[str, tuple]:
    return {path: about[:5] for path, about in snapshot(root).items()}


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    assert snapshot(site.cache) == site.cached


@pytest.fixture
def no_sync(monkeypatch):
    """It is for machines that fail. Here it would be called thousands of times."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_make_and_undo(site):
    before = snapshot(site.root)
    names = {
        journal.place: change.names_in_journal(site.root, journal.place, changes)
        for journal, changes in zip(site.journals(), site.changes.values(), strict=True)
    }
    site.make()
    one = site.root / "airflow" / "one"
    assert (one / "changed.py").read_text() == "VALUE = 'patched'\n"
    assert (one / "changed.py").stat().st_ino != before["airflow/one/changed.py"][-1]
    assert (one / "config.yml").stat().st_mode & 0o777 == 0o600
    assert (one / "fresh" / "created.py").exists()
    assert not (one / "deleted.py").exists()
    assert sorted(path.name for path in (one / "__pycache__").iterdir()) == [
        *(f"changed.{TAG}.pyc", f"other.{TAG}.opt-1.pyc", f"other.{TAG}.pyc"),
    ]
    for journal in site.journals():
        assert journal.complete
        assert set(names[journal.place]) == {path for path in journal.place.rglob("*") if path.is_file()}
    site.undo()
    assert snapshot(site.root) == before


def test_what_python_compiles_meanwhile_is_removed(site):
    before = snapshot(site.root)
    site.make()
    for module in ("changed", "fresh/created"):
        py_compile.compile(str(site.root / "airflow" / "one" / f"{module}.py"), optimize=2, doraise=True)
    (site.root / f"airflow/one/__pycache__/changed.{TAG}.pyc").write_bytes(b"newer")
    site.undo()
    assert snapshot(site.root) == before


def test_without_hard_links(site, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EPERM, "no links here")

    before = without_inodes(site.root)
    monkeypatch.setattr(os, "link", refuse)
    site.make()
    site.undo()
    assert without_inodes(site.root) == before


def test_symbolic_links_to_files_stay_links(site):
    # As uv makes with --link-mode symlink.
    for path in list(site.root.rglob("*.py")):
        path.unlink()
        path.symlink_to(site.cache / path.relative_to(site.root))
    before = snapshot(site.root)
    site.make()
    assert (site.root / "airflow/one/changed.py").read_text() == "VALUE = 'patched'\n"
    site.undo()
    assert snapshot(site.root) == before


@pytest.mark.parametrize(
    "path",
    [
        "airflow/one/changed.py",
        "airflow/two/fresh/created.py",
        "two.dist-info/RECORD",
        "two.dist-info/journal/before/airflow/two/changed.py",
    ],
)
def test_foreign_change_and_lost_original_are_not_undone(site, path):
    site.make()
    (site.root / path).unlink()
    if "before" not in path:
        (site.root / path).write_text("mine\n")
    before = snapshot(site.root)
    with pytest.raises(PatchsetError, match=f"{path.partition('before/')[2] or path} cannot be restored"):
        site.undo()
    assert snapshot(site.root) == before


def below(root: Path, args: tuple) -> bool:
    return any(str(arg).startswith(str(root)) for arg in args)


@contextmanager
def stopping(root: Path, step: int, act: Callable[[], object], once: bool = True) -> Iterator[list[int]]:
    """
    Call ``act`` before the step-th call that changes something below ``root``; give the number of calls.

    :param once: not before all calls after it, too
    """
    count = [0]

    def wrapped(function, *args, **options):
        if below(root, args):
            count[0] += 1
            if count[0] == step or (count[0] > step and not once):
                act()
        return function(*args, **options)

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in CALLS:
            monkeypatch.setattr(os, name, functools.partial(wrapped, getattr(os, name)))
        # It would go by descriptors, which say nothing of the place.
        monkeypatch.setattr(shutil, "_use_fd_functions", False)
        yield count


class Dead(BaseException):
    """What a killed process would do now is not done."""


def die() -> None:
    raise Dead


def killed(site: Site, step: int, what: str) -> bool:
    """Do it as if the process was killed at a step; return whether it came to that."""
    with stopping(site.root, step, die, once=False) as count, suppress(Dead):
        getattr(site, what)()
    return count[0] >= step


def test_killed(site):
    """What is taken for a killed process below leaves the same as one."""
    before = snapshot(site.root)
    pid = os.fork()
    if pid == 0:
        try:
            with stopping(site.root, 50, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                site.make()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    left = snapshot(site.root)
    assert left != before
    site.undo()
    assert snapshot(site.root) == before
    assert killed(site, 50, "make")
    assert snapshot(site.root).keys() == left.keys()
    site.undo()
    assert snapshot(site.root) == before


def test_killed_at_every_step(site, no_sync):
    """Of making the change, then of undoing what is left of that at every eighth step."""
    before = snapshot(site.root)
    step = 1
    while killed(site, step, "make"):
        left = snapshot(site.root)
        again = 1 + step % 8
        while killed(site, again, "undo"):
            again += 8
        site.undo()
        assert snapshot(site.root) == before, step
        if left != before and step % 3 == 0:
            assert killed(site, step, "make")
            # As install does: nothing is gone on with.
            site.undo()
            site.make()
            assert all(journal.complete for journal in site.journals())
            site.undo()
            assert snapshot(site.root) == before, step
        step += 1
    site.undo()
    assert step > 60
    assert snapshot(site.root) == before


def test_every_step_of_undoing_may_be_the_last(site, no_sync):
    before = snapshot(site.root)
    step = 1
    site.make()
    while killed(site, step, "undo"):
        site.undo()
        assert snapshot(site.root) == before, step
        site.make()
        step += 1
    assert step > 20
    assert snapshot(site.root) == before


@pytest.mark.parametrize(
    ("error", "stride"), [(OSError(errno.ENOSPC, "No space left on device"), 1), (KeyboardInterrupt(), 3)]
)
def test_failure_at_every_step_changes_nothing(site, no_sync, error, stride):
    def fail():
        raise error

    before = without_inodes(site.root)
    step = 1
    while True:
        with stopping(site.root, step, fail) as count, suppress(type(error)):
            site.make()
        if count[0] < step:
            break
        if without_inodes(site.root) != before:
            # There may be no links to originals; these are copied then.
            assert all(journal.complete for journal in site.journals()), step
            site.undo()
        assert without_inodes(site.root) == before, step
        step += stride
    site.undo()
    assert step > 60
    assert without_inodes(site.root) == before
