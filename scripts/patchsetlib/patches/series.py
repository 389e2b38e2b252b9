# SPDX-License-Identifier: Apache-2.0
"""The patches of a base in their order, read with git's own tools (see ``docs/patch-format.md``)."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches.base import Base
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import display

_CREATED = re.compile(r"^ create mode \d+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Patch:
    """One patch: a commit in the form of ``git format-patch``."""

    path: Path
    subject: str
    body: str
    """The message without subject and trailers."""
    trailers: dict[str, tuple[str, ...]]
    files: tuple[str, ...]
    """Paths in the monorepo that the patch changes."""
    created: frozenset[str]
    """Those of ``files`` that do not exist before the patch."""
    author: str
    """``Name <email>``"""
    date: str
    """As in the patch, RFC 2822."""

    @property
    def name(self) -> str:
        """The name of the file, e.g. ``0001-short-subject.patch``."""
        return self.path.name

    @property
    def slug(self) -> str:
        """The name without number and suffix: what stays when the series is renumbered."""
        return slug(self.name)

    def trailer(self, key: str) -> str | None:
        """Return the value of a trailer, the last one if there are several."""
        return self.trailers.get(key, (None,))[-1]


@dataclass(frozen=True)
class Series:
    """The patches of a base, in the order of its ``series`` file."""

    base: Base
    patches: list[Patch]


def slug(name: str) -> str:
    """Return a patch's file name without number and suffix."""
    return re.sub(r"^\d+-", "", name).removesuffix(".patch")


def subject_of(text: str) -> str:
    """Return the subject of a patch, given its text."""
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        headers = git("mailinfo", "-b", "--encoding=UTF-8", os.devnull, os.devnull, cwd=scratch, input=text)
    return re.search(r"^Subject: (.*)$", headers, re.MULTILINE)[1].strip()


def trailers_of(message: str) -> dict[str, tuple[str, ...]]:
    """Return the trailers of a commit message: key to values, each on one line."""
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        parsed = git("interpret-trailers", "--parse", "--no-divider", cwd=scratch, input=message)
    trailers: dict[str, tuple[str, ...]] = {}
    for line in parsed.splitlines():
        key, _, value = line.partition(":")
        trailers[key] = (*trailers.get(key, ()), value.strip())
    return trailers


def names(base: Base) -> list[str]:
    """
    Return the file names that ``series`` lists, in order.

    :raises PatchsetError: if the file cannot be read
    """
    try:
        lines = base.series_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise PatchsetError(f"{display(base.series_file)} cannot be read: {e}", "restore it with git") from e
    return [entry for line in lines if (entry := line.split("#", 1)[0].strip())]


def load(base: Base) -> Series:
    """
    Read the series of ``base``; a series without patches is valid.

    :raises PatchsetError: if a listed patch is missing or not readable as one
    """
    return Series(base, [parse(base.directory / name) for name in names(base)])


def parse(path: Path) -> Patch:
    """
    Read one patch file.

    :raises PatchsetError: if it is missing or not a patch as ``git format-patch`` writes it
    """
    try:
        text = path.read_bytes().decode(errors="surrogateescape")
    except OSError as e:
        raise PatchsetError(f"{display(path)} cannot be read: {e.strerror}", "restore it with git") from e
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        try:
            headers = git("mailinfo", "-b", "--encoding=UTF-8", "message", "diff", cwd=scratch, input=text)
            message = Path(scratch, "message").read_text(encoding="utf-8", errors="surrogateescape")
            # git apply calls a patch without a diff an error; here it is a finding for others to make.
            empty = b"\ndiff --git " not in b"\n" + Path(scratch, "diff").read_bytes()
            numstat = "" if empty else git("apply", "--numstat", "-z", "diff", cwd=scratch)
            summary = "" if empty else git("apply", "--summary", "diff", cwd=scratch)
        except GitError as e:
            raise PatchsetError(f"{display(path)} is not a patch: {e.problem.rpartition(': ')[2]}") from e
        header = dict(line.split(": ", 1) for line in headers.splitlines() if ": " in line)
        if "Subject" not in header:
            raise PatchsetError(f"{display(path)} is not a patch: it has no subject")
        subject = header["Subject"].strip()
        message = message.strip("\n")
    trailers = trailers_of(f"{subject}\n\n{message}\n")
    return Patch(
        path=path,
        subject=subject,
        body=message.rpartition("\n\n")[0].strip("\n") if trailers else message,
        trailers=trailers,
        files=tuple(entry.split("\t", 2)[2] for entry in numstat.split("\0")[:-1]),
        created=frozenset(_CREATED.findall(summary)),
        author=f"{header.get('Author', '')} <{header.get('Email', '')}>",
        date=header.get("Date", ""),
    )
