# SPDX-License-Identifier: Apache-2.0
"""
What the installed files of a release hold: stock, or after so many patches of the series.

Read from the ``index`` lines of the patch files, which have git's id of a file before and after the patch.
From stock files, git makes the patched ones; no source tree and no network is needed for that.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import series
from patchsetlib.patches.base import Base, Distribution
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, git
from patchsetlib.shell.paths import display

ABSENT = "0" * 40
"""The id of a file that does not exist."""

_CHANGE = re.compile(
    r"^diff --git a/(?P<path>.+) b/(?P=path)\n(?:(?:new|deleted) file mode .*\n)?"
    r"index (?P<before>[0-9a-f]{40})\.\.(?P<after>[0-9a-f]{40})",
    re.MULTILINE,
)


@dataclass(frozen=True)
class File:
    """A file of a distribution that a series changes, creates or deletes."""

    distribution: Distribution
    path: str
    """Below ``site-packages``."""
    ids: tuple[str, ...]
    """git's blob id after no patch, after the first, and so on to that after all; or ``ABSENT``."""

    @property
    def changes(self) -> bool:
        """Whether it is another one after all patches than before."""
        return self.ids[0] != self.ids[-1]

    @property
    def source(self) -> str:
        """Its path in the monorepo."""
        return f"{self.distribution.directory}/src/{self.path}"


def changed_files(base: Base) -> dict[str, tuple[str, ...]]:
    """
    Return git's ids (see ``File``) of all files that the series of ``base`` changes, by path in the monorepo.

    :raises PatchsetError: if a patch file cannot be read, or does not continue the one before it
    """
    names = series.names(base)
    ids: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        patch = base.directory / name
        try:
            text = patch.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise PatchsetError(f"{display(patch)} cannot be read: {e}", "restore it with git") from e
        for path, before, after in _CHANGE.findall(text):
            known = ids.setdefault(path, [])
            known += [known[-1] if known else before] * (number + 1 - len(known))
            if known[-1] != before:
                problem = f"{display(patch)} is not made for {path} as the patches before it leave it"
                raise PatchsetError(problem, f"run patchset check {base.name}")
            known.append(after)
    return {
        path: (*known, *[known[-1]] * (len(names) + 1 - len(known))) for path, known in sorted(ids.items())
    }


def installed_files(base: Base) -> list[File]:
    """
    Return the files of an installed ``base`` that its series changes, sorted by path.

    Tests and documentation are not among them: no wheel holds them.

    :raises PatchsetError: if a patch file cannot be read, or does not continue the one before it
    """
    return [
        File(distribution, path.removeprefix(sources), ids)
        for path, ids in changed_files(base).items()
        for distribution in base.distributions
        if path.startswith(sources := f"{distribution.directory}/src/")
    ]


def patched(base: Base, stock: Callable[[File], Path], scratch: Path) -> list[tuple[File, Path | None]]:
    """
    Return the files that the series changes and the patched form of each, below ``scratch``; None: deleted.

    :param stock: returns where a file is in its stock form, or would be; of the changed distributions alone
    :param scratch: an empty directory, created if there is none
    :raises PatchsetError: if the stock files are not those of ``base``, or a patch does not apply
    """
    files = installed_files(base)
    # What one patch does to a distribution and another one takes back is left out with all of that.
    changed = {file.distribution for file in files if file.changes}
    files = [file for file in files if file.distribution in changed]
    if not files:
        return []
    scratch.mkdir(parents=True, exist_ok=True)
    for file in files:
        if blob_id(stock(file)) != file.ids[0]:
            project = f"{file.distribution.project} {file.distribution.version}"
            raise PatchsetError(f"{file.path} is not as in the {project} that the series is for")
        if file.ids[0] != ABSENT:
            target = scratch / file.source
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(stock(file), target)
    included = [f"--include={each.directory}/src/*" for each in base.distributions if each in changed]
    for name in series.names(base):
        patch = series.path_of(base, name)
        try:
            # A patch of tests and documentation alone changes nothing here, which git does not mind.
            git("apply", *included, patch.resolve(), cwd=scratch)
        except GitError as e:
            remedy = f"run scripts/patchset check {base.name}"
            raise PatchsetError(f"{name} does not apply: {e.reason}", remedy) from e
    found = []
    for file in filter(lambda file: file.changes, files):
        path = scratch / file.source
        if blob_id(path) != file.ids[-1]:
            problem = f"{file.path} is not what the patches of {base.name} say that they make of it"
            raise PatchsetError(problem, f"run scripts/patchset check {base.name}")
        found.append((file, None if file.ids[-1] == ABSENT else path))
    return found


def blob_id(path: Path) -> str:
    """
    Return git's id of the contents of ``path``, ``ABSENT`` if there is no such file.

    :raises OSError: if it exists and cannot be read
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ABSENT
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
