# SPDX-License-Identifier: Apache-2.0
"""
A base: what a series of patches is for, as its ``base.toml`` says.

It is a release of Airflow, whose distributions have an sdist and a wheel, or a commit of upstream, in
``airflow-core/<base>/``. Or it is a release of a provider, in ``providers/<id>/<version>/``: the base
``<id>-<version>``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.paths import ROOT, display

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UPSTREAM = "https://github.com/apache/airflow"


@dataclass(frozen=True)
class Artifact:
    """A file on the package index, identified by its hash."""

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
class Base:
    """One base, as its ``base.toml`` describes it."""

    name: str
    directory: Path
    """Directory that holds ``base.toml``, ``series`` and the patches."""
    version: str
    """Of the release; of a commit, what its sources call themselves."""
    distributions: tuple[Distribution, ...]
    commit: str
    """Upstream's commit, or its tag: the one that the release was built from, or the base itself."""
    python: str
    """Range of Python versions, as a version specifier."""
    repository: str = UPSTREAM
    is_default: bool = False
    """Whether to take it where no base is given."""
    same_series_as: str | None = None
    """Name of the base of a release that has the same patches."""
    ruff: str | None = None
    """Version of ruff that upstream pins."""
    tag: str | None = None
    """Upstream's tag; only of a release, as all that follows."""
    date: str = ""
    """Date of the base commit in a tree made from the sdists, RFC 3339."""
    series_version: int = 0
    """Grows when a patch changes; the last part of the version of patched wheels."""
    settings_sdist: Artifact | None = None
    """The sdist that carries upstream's root ``pyproject.toml``."""

    @property
    def released(self) -> bool:
        return self.tag is not None

    @property
    def is_provider(self) -> bool:
        """Whether it is a provider: its environments also have an Airflow, which is none of the base."""
        return self.distributions[0].directory.startswith("providers/")

    @property
    def title(self) -> str:
        """What to call it in a sentence."""
        if not self.released:
            return f"upstream's commit {self.commit[:12]}"
        return f"{self.distributions[0].project if self.is_provider else 'Airflow'} {self.version}"

    @property
    def local_version(self) -> str:
        """What the version of a distribution ends with that the series has changed."""
        return f"+localexecutor.{self.series_version}"

    def require_release(self) -> None:
        """
        Make sure that there are sdists and wheels.

        :raises PatchsetError: if the base is a commit
        """
        if not self.released:
            raise PatchsetError(
                f"the base {self.name} is a commit of upstream, which has no sdist and no wheel",
                "this needs the base of a release; patchset status lists the bases",
            )

    @property
    def series_file(self) -> Path:
        return self.directory / "series"

    @property
    def commits_file(self) -> Path:
        """The ids of the series as commits, on the tree of the sdists or on upstream's commit."""
        return self.directory / "commits"

    @property
    def constraints(self) -> Path:
        """Pinned, hashed dependencies of the release."""
        return self.directory / "constraints.txt"

    @property
    def test_constraints(self) -> Path:
        """Pinned, hashed dependencies of the release and of its unit tests."""
        return self.directory / "test-constraints.txt"


def all_bases() -> list[str]:
    """Return the names of the bases in this repository, sorted."""
    return sorted(_directories())


def _directories() -> dict[str, Path]:
    """Return the directories of all bases by their names."""
    found = {path.parent.name: path.parent for path in (ROOT / "airflow-core").glob("*/base.toml")}
    for path in (ROOT / "providers").glob("*/*/base.toml"):
        found["-".join(path.parts[-3:-1])] = path.parent
    return found


def load(name: str) -> Base:
    """
    Read the base called ``name``.

    :raises UsageError: if there is no such base
    :raises PatchsetError: if its ``base.toml`` cannot be read or lacks an entry
    """
    directory = _directories().get(name)
    if directory is None:
        raise UsageError(f"unknown base {name!r}", f"bases here: {', '.join(all_bases()) or 'none'}")
    path = directory / "base.toml"
    try:
        return _read(name, path, tomllib.loads(path.read_text(encoding="utf-8")))
    except KeyError as e:
        raise PatchsetError(f"{display(path)}: no entry {e}", "restore it with git checkout") from e
    except (OSError, ValueError, TypeError) as e:
        raise PatchsetError(f"{display(path)}: {e}", "restore it with git checkout") from e


def chosen(names: list[str]) -> list[Base]:
    """
    Return the bases called ``names`` (all), the default one first.

    :raises UsageError: if there is no such base
    """
    return sorted(map(load, names or all_bases()), key=lambda base: not base.is_default)


def default() -> Base:
    """Return the base to take where none is given."""
    return chosen([])[0]


def _read(name: str, path: Path, data: dict) -> Base:
    git, settings = data["git"], data.get("settings-sdist")
    released = "tag" in git
    return Base(
        name=name,
        directory=path.parent,
        version=data["version"],
        distributions=tuple(_distribution(table) for table in data["distribution"]),
        # No wheel of a provider says which commit it was built from.
        commit=git["tag" if released and "commit" not in git else "commit"],
        python=data["python"]["range"],
        repository=git.get("repository", UPSTREAM),
        is_default=data.get("default", False),
        same_series_as=data.get("same-series-as"),
        ruff=data.get("tools", {}).get("ruff"),
        tag=git.get("tag"),
        date=git["date"] if released else "",
        series_version=data["series-version"] if released else 0,
        settings_sdist=Artifact(**settings, kind="sdist") if settings else None,
    )


def _distribution(table: dict) -> Distribution:
    project, version = table["project"], table.get("version")
    if version is None:
        return Distribution(project, table["directory"])
    sdist, wheel = (Artifact(project, version, kind, table[kind]) for kind in ("sdist", "wheel"))
    return Distribution(project, table["directory"], version, sdist, wheel)
