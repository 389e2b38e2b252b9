# SPDX-License-Identifier: Apache-2.0
"""
A base: the Airflow that a series of patches is for, as ``airflow-core/<base>/base.toml`` says.

It is a release, with sdist and wheel, or a commit of upstream's repository, which has neither.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UPSTREAM = "https://github.com/apache/airflow"


@dataclass(frozen=True)
class Artifact:
    """A file on the package index, identified by name, version and hash."""

    project: str
    version: str
    kind: str
    """``sdist`` or ``wheel``"""
    sha256: str


@dataclass(frozen=True)
class Distribution:
    """A part of the monorepo that is released on its own."""

    project: str
    directory: str
    """Its place in the monorepo, e.g. ``airflow-core``."""
    version: str | None = None
    sdist: Artifact | None = None
    wheel: Artifact | None = None


@dataclass(frozen=True)
class Release:
    """What a release has and a mere commit has not."""

    tag: str
    date: str
    """Date of the base commit in an sdist tree, RFC 3339."""
    cutoff: str
    """Newest upload date of a dependency, for ``uv --exclude-newer``."""
    sdist: Artifact
    wheel: Artifact
    config_sdist: Artifact | None
    """The sdist that carries upstream's root ``pyproject.toml`` (ruff configuration)."""


@dataclass(frozen=True)
class Base:
    """One base, as its ``base.toml`` describes it."""

    name: str
    directory: Path
    """Directory that holds ``base.toml``, ``series`` and the patches."""
    package: str
    """Directory of the patched distribution in the monorepo, e.g. ``airflow-core``."""
    version: str
    """Of the release; of a commit, what its sources call themselves."""
    repository: str
    """URL of upstream's repository."""
    commit: str
    """Upstream's commit: the one that the release was built from, or the base itself."""
    python: str
    """Range of Python versions, as a version specifier."""
    released: Release | None
    """None if the base is a commit; whoever needs a release takes ``release``."""

    @property
    def title(self) -> str:
        """What to call it in a sentence."""
        return f"Airflow {self.version}" if self.released else f"upstream's commit {self.commit[:12]}"

    @property
    def release(self) -> Release:
        """
        What only a release has.

        :raises PatchsetError: if the base is a commit
        """
        if self.released is None:
            raise PatchsetError(
                f"the base {self.name} is a commit of upstream, which has no sdist and no wheel",
                "this needs the base of a release; patchset status lists the bases",
            )
        return self.released

    def require_release(self) -> None:
        """
        Make sure that there are sdists and wheels.

        :raises PatchsetError: if the base is a commit
        """
        _ = self.release

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        found = Distribution(self.wheel.project, self.package, self.wheel.version, self.sdist, self.wheel)
        return (found,)

    @property
    def date(self) -> str:
        return self.release.date

    @property
    def cutoff(self) -> str:
        return self.release.cutoff

    @property
    def sdist(self) -> Artifact:
        return self.release.sdist

    @property
    def wheel(self) -> Artifact:
        return self.release.wheel

    @property
    def config_sdist(self) -> Artifact | None:
        return self.release.config_sdist

    @property
    def series_file(self) -> Path:
        return self.directory / "series"

    @property
    def constraints(self) -> Path:
        """Pinned, hashed dependencies of the release."""
        return self.directory / "constraints.txt"

    @property
    def test_constraints(self) -> Path:
        """Pinned, hashed dependencies of the release and of its unit tests."""
        return self.directory / "test-constraints.txt"


def _artifact(table: dict, kind: str) -> Artifact:
    return Artifact(table["project"], table["version"], kind, table["sha256"])


def _release(data: dict) -> Release | None:
    if "sdist" not in data and "wheel" not in data and "tag" not in data["git"]:
        return None
    return Release(
        tag=data["git"]["tag"],
        date=data["sdist"]["date"],
        cutoff=data["python"]["exclude-newer"],
        sdist=_artifact(data["sdist"], "sdist"),
        wheel=_artifact(data["wheel"], "wheel"),
        config_sdist=_artifact(data["config-sdist"], "sdist") if "config-sdist" in data else None,
    )


def all_bases() -> list[str]:
    """Return the names of the bases in this repository, sorted."""
    return sorted(path.parent.name for path in (ROOT / "airflow-core").glob("*/base.toml"))


def load(name: str) -> Base:
    """
    Read the base called ``name``.

    :raises UsageError: if there is no such base
    :raises PatchsetError: if its ``base.toml`` cannot be read or lacks an entry
    """
    if name not in all_bases():
        raise UsageError(f"unknown base {name!r}", f"bases here: {', '.join(all_bases()) or 'none'}")
    return read(ROOT / "airflow-core" / name, name)


def read(directory: Path, name: str) -> Base:
    """
    Read the base in ``directory``.

    :raises PatchsetError: if its ``base.toml`` cannot be read or lacks an entry
    """
    path = directory / "base.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Base(
            name=name,
            directory=directory,
            package="airflow-core",
            version=data["version"],
            repository=data["git"].get("repository", UPSTREAM),
            commit=data["git"]["commit"],
            python=data["python"]["range"],
            released=_release(data),
        )
    except (OSError, ValueError, TypeError) as e:
        raise PatchsetError(f"{path}: {e}", "restore it with git checkout") from e
    except KeyError as e:
        raise PatchsetError(f"{path}: no entry {e}", "restore it with git checkout") from e
