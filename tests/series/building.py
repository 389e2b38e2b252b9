# SPDX-License-Identifier: Apache-2.0
"""A base built for its tests: each commit of its series has a tree, made when first asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import source
from patchsetlib.patches.base import Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell.git import git
from patchsetlib.upstream import testing
from patchsetlib.upstream.testing import Outcome


class Built:
    """A base with its series as commits, and a directory for trees and logs."""

    def __init__(self, base: Base, directory: Path):
        self.base = base
        self.directory = directory
        self.repository = source.make_sdist_tree(base, directory / "series")
        self.start = git("rev-parse", "HEAD", cwd=self.repository).strip()
        self.applied = source.apply_series(base, self.repository)
        self.tests = f"{base.package}/tests/**/test_*.py"

    @functools.cached_property
    def database(self) -> Path:
        home = self.directory / "migrated"
        home.mkdir()
        return testing.migrated_database(self.base, home)

    @functools.cache  # noqa: B019 (lives as long as the session)
    def tree(self, commit: str) -> Path:
        """Return a tree of ``commit`` with upstream's settings, for reading."""
        return self.new_tree(commit, commit[:12])

    def new_tree(self, commit: str, name: str) -> Path:
        tree = self.directory / name
        git("worktree", "add", "--quiet", "--detach", tree, commit, cwd=self.repository)
        testing.add_settings(self.base, tree)
        return tree

    def run(self, tree: Path, files: list[str], **options) -> Outcome:
        scratch = self.directory / f"{tree.name}-run"
        return testing.run_unit_tests(self.base, tree, files, self.database, scratch, **options)

    def unit_tests(self, commit: str) -> list[str]:
        """Return the test modules that the series has brought up to ``commit``."""
        return testing.changed_files(self.repository, self.start, commit, f":(glob){self.tests}")


@dataclass(frozen=True)
class Step:
    """One commit of a series."""

    built: Built
    patch: Patch
    commit: str
    parent: str

    @property
    def name(self) -> str:
        return f"{self.built.base.name} {self.patch.name.removesuffix('.patch')}"

    @property
    def tree(self) -> Path:
        return self.built.tree(self.commit)

    @property
    def code(self) -> list[str]:
        """The Python files that the commit changes."""
        return testing.changed_files(self.built.repository, self.parent, self.commit, "*.py")

    @property
    def own_tests(self) -> list[str]:
        """The test modules that the commit brings or changes."""
        return testing.changed_files(
            self.built.repository, self.parent, self.commit, f":(glob){self.built.tests}"
        )
