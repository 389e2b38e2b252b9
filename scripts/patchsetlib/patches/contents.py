# SPDX-License-Identifier: Apache-2.0
"""
What the installed files of a release hold: stock, or after so many patches of the series.

Read from the ``index`` lines of the patch files, which have git's id of a file before and after the patch.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import series
from patchsetlib.patches.base import Base, Distribution
from patchsetlib.shell.errors import PatchsetError
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


def installed_files(base: Base) -> list[File]:
    """
    Return the files of an installed ``base`` that its series changes, sorted by path.

    Tests and documentation are not among them: no wheel holds them.

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
    return [
        File(distribution, path.removeprefix(sources), (*known, *[known[-1]] * (len(names) + 1 - len(known))))
        for path, known in sorted(ids.items())
        for distribution in base.distributions
        if path.startswith(sources := f"{distribution.directory}/src/")
    ]


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
