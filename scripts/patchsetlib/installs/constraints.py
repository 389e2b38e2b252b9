# SPDX-License-Identifier: Apache-2.0
"""
Pin what an environment is made of: every distribution by version and hashes, as of the base's release.

What is wanted stands in ``constraints.in``, ``test-constraints.in`` and ``test-unchecked.in`` of the base.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet

from patchsetlib.patches.base import Base
from patchsetlib.shell import ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display


def write(base: Base) -> list[Path]:
    """
    Write the lock files of ``base`` anew and return their paths.

    :raises PatchsetError: if the base is no release, or a requirement cannot be met; the files then stay as
        they are
    """
    _ = base.release  # before anything else is missing
    with ui.step(f"resolving the dependencies of {base.name}"):
        text = compiled(base, "constraints.in")
        _replace(base.constraints, text)
    with ui.step(f"resolving the test dependencies of {base.name}"):
        text = compiled(base, "test-constraints.in", "--constraints", base.constraints.name)
        # Its own requirements contradict those of the release, so it stands apart and nothing follows them.
        text += compiled(base, "test-unchecked.in", "--no-deps", "--no-header")
        _replace(base.test_constraints, text)
    return [base.constraints, base.test_constraints]


def compiled(base: Base, name: str, *options: str) -> str:
    """Return the lock file for the requirements in the file ``name`` of ``base``."""
    if not (base.directory / name).exists():
        raise PatchsetError(f"{display(base.directory / name)} does not exist", "restore it with git")
    return uvtool.uv(
        *(
            "pip",
            "compile",
            "--universal",
            "--python-version",
            oldest_python(base),
            "--python",
            sys.executable,
        ),
        *("--exclude-newer", base.cutoff, "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"),
        # Not resolved against what happens to be installed or was pinned before, nor for this machine.
        *("--upgrade", "--custom-compile-command", f"scripts/patchset constraints {base.name}"),
        *options,
        name,
        # Names relative to this directory stand in the comments of the result.
        cwd=base.directory,
    )


def oldest_python(base: Base) -> str:
    """Return the oldest ``X.Y`` that ``base`` runs on."""
    minors = [f"3.{minor}" for minor in range(8, 30)]
    return next(SpecifierSet(base.python).filter(minors))


def _replace(path: Path, text: str) -> None:
    if re.search(r"^(-|--)|@ |file:", text, re.MULTILINE):
        raise PatchsetError(
            f"{path.name} would depend on this machine: a file or option in place of a version",
            "unset what points uv to local files (find-links in uv.toml)",
        )
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
