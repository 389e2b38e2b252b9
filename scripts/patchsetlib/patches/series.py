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

COMMON = "../common/"
"""How an entry of ``series`` starts whose patch is the same on several bases."""


@dataclass(frozen=True)
class Patch:
    """One patch: a commit in the form of ``git format-patch``."""

    path: Path
    name: str
    """As ``series`` lists it: ``0001-short-subject.patch`` or ``../common/short-subject.patch``."""
    subject: str
    message: str
    """All of it, the subject first."""
    body: str
    """The message without subject and trailers."""
    trailers: dict[str, tuple[str, ...]]
    files: tuple[str, ...]
    """Paths in the monorepo that the patch changes."""
    created: frozenset[str]
    """Those of ``files`` that do not exist before the patch."""

    @property
    def slug(self) -> str:
        """The file name without number and suffix: what stays when the series is renumbered."""
        return slug(self.name)

    def trailer(self, key: str) -> str | None:
        """Return the value of a trailer, the last one if there are several."""
        return self.trailers.get(key, (None,))[-1]


def slug(name: str) -> str:
    """Return a patch's file name without directory, number and suffix."""
    return re.sub(r"^\d{4}-", "", name.rpartition("/")[2]).removesuffix(".patch")


def names(base: Base) -> list[str]:
    """
    Return what ``series`` lists, in order.

    :raises PatchsetError: if the file cannot be read
    """
    try:
        lines = base.series_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise PatchsetError(f"{display(base.series_file)} cannot be read: {e}", "restore it with git") from e
    return [entry for line in lines if (entry := line.split("#", 1)[0].strip())]


def load(base: Base) -> list[Patch]:
    """
    Return the patches of ``base`` in order; a series without patches is valid.

    :raises PatchsetError: if a listed patch is missing or not readable as one
    """
    return [read(base, name) for name in names(base)]


def path_of(base: Base, name: str) -> Path:
    """Return the path of a patch that ``series`` lists."""
    return Path(os.path.normpath(base.directory / name))


def read(base: Base, name: str) -> Patch:
    """
    Read one patch that ``series`` lists.

    :raises PatchsetError: if it is missing or not a patch
    """
    return parse(path_of(base, name), name)


def parse(path: Path, name: str | None = None) -> Patch:
    """
    Read one patch file.

    :param name: as ``series`` lists it; by default its file name
    :raises PatchsetError: if it is missing or not a patch as ``git format-patch`` writes it
    """
    try:
        text = path.read_bytes().decode(errors="surrogateescape")
    except OSError as e:
        raise PatchsetError(f"{display(path)} cannot be read: {e.strerror}", "restore it with git") from e
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        try:
            header = _header(
                git("mailinfo", "-b", "--encoding=UTF-8", "body", "diff", cwd=scratch, input=text)
            )
            body = Path(scratch, "body").read_text(encoding="utf-8", errors="surrogateescape").strip("\n")
            message = f"{header['Subject']}\n\n{body}\n"
            trailers = git("interpret-trailers", "--parse", "--no-divider", cwd=scratch, input=message)
            # git apply calls a patch without a diff an error; check reports it as what it is.
            empty = b"\ndiff --git " not in b"\n" + Path(scratch, "diff").read_bytes()
            summary = "" if empty else git("apply", "--numstat", "--summary", "diff", cwd=scratch)
        except GitError as e:
            raise PatchsetError(f"{display(path)} is not a patch: {e.reason}") from e
        except KeyError:
            raise PatchsetError(f"{display(path)} is not a patch: it has no subject") from None
    return Patch(
        path=path,
        name=name or path.name,
        subject=header["Subject"],
        message=message,
        body=body.rpartition("\n\n")[0].strip("\n") if trailers else body,
        trailers=_trailers(trailers),
        files=tuple(re.findall(r"^(?:\d+|-)\t(?:\d+|-)\t(.*)$", summary, re.MULTILINE)),
        created=frozenset(re.findall(r"^ create mode \d+ (.*)$", summary, re.MULTILINE)),
    )


def _header(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(": ") for line in text.splitlines())}


def _trailers(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found[key] = (*found.get(key, ()), value.strip())
    return found
