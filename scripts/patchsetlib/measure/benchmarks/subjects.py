# SPDX-License-Identifier: Apache-2.0
"""What a benchmark compares: stock, the series or its beginnings, and any other installed Airflow."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchsetlib.installs import environment
from patchsetlib.measure.workload import describe_python
from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import work_dir


@dataclass(frozen=True)
class Subject:
    """One Airflow to measure."""

    label: str
    """Its column in the table."""
    python: Path
    description: dict
    """See ``workload.describe_python``."""
    patches: tuple[str, ...] = ()
    """File names of the patches in it; none for stock, and for what is not of this repository."""
    commits: tuple[str, ...] = ()
    """Ids of these patches as commits on the sdist tree."""
    config: Mapping[str, str] = field(default_factory=dict)
    """What is configured unlike the other subjects, by ``section.option``."""

    @property
    def airflow(self) -> str:
        """Version of Airflow."""
        return self.description["airflow"]

    def as_json(self) -> dict:
        own = {"config": dict(self.config)} if self.config else {}
        return {"patches": list(self.patches), "commits": list(self.commits), **own, **self.description}

    def check(self) -> None:
        """
        Do nothing if the installed Airflow is what it was.

        :raises PatchsetError: if it has been exchanged since the benchmark began
        """
        if describe_python(self.python) != self.description:
            raise PatchsetError(
                f"{self.label}: what is installed there has changed during the benchmark",
                "leave series and environments alone while it runs, and start it again",
            )


def subjects(
    base: Base,
    *,
    python_version: str | None = None,
    each: bool = False,
    variants: Sequence[str] = (),
    against: Sequence[str] = (),
) -> list[Subject]:
    """
    Return what to measure, in the order of the table, with all environments built.

    :param each: stock, then the series cut after its first patch, its second, and so on
    :param variants: ``[LABEL=]SECTION.OPTION=VALUE``: patched once more, so configured
    :param against: ``[LABEL=]PATH`` of the Python of other installations
    :raises UsageError: if ``variants`` or ``against`` are no good
    :raises PatchsetError: if an environment cannot be built
    """
    # First, as it is the quickest to fail.
    others = [_other(text) for text in against]
    settings = [_variant(text) for text in variants]
    found = [_of(base, "stock", False, python_version)]
    if each:
        for length in range(1, len(series.names(base))):
            label = "patch 1" if length == 1 else f"patches 1-{length}"
            found.append(_of(beginning(base, length), label, True, python_version))
    patched = _of(base, "patched", True, python_version)
    found += [patched, *(dataclasses.replace(patched, label=label, config=own) for label, own in settings)]
    labels = [subject.label for subject in (*found, *others)]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(f"two are called {', '.join(twice)}", "give them other labels: LABEL=...")
    return [*found, *others]


def beginning(base: Base, length: int) -> Base:
    """
    Return a base whose series is the first ``length`` patches of that of ``base``.

    It is a copy below the work directory, which later changes of the series leave alone.
    """
    name = f"{base.name}-first-{length}"
    directory = work_dir() / name / "base"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    names = series.names(base)[:length]
    for file in (base.constraints, *(base.directory / patch for patch in names)):
        shutil.copyfile(file, directory / file.name)
    (directory / "series").write_text("".join(f"{patch}\n" for patch in names), encoding="utf-8")
    return dataclasses.replace(base, name=name, directory=directory)


def _of(base: Base, label: str, patched: bool, python_version: str | None) -> Subject:
    python = environment.python(base, patched=patched, python_version=python_version)
    description = describe_python(python)
    if not patched:
        return Subject(label, python, description)
    tree = source.cached_tree(base, patched=True)
    commits = git("rev-list", "--reverse", f"{source.tag_name(base)}..HEAD", cwd=tree).split()
    return Subject(label, python, description, tuple(series.names(base)), tuple(commits))


def _variant(text: str) -> tuple[str, dict[str, str]]:
    setting, _, value = text.rpartition("=")
    label, _, option = setting.rpartition("=")
    section, _, name = option.partition(".")
    if not (section and name and value):
        raise UsageError(
            f"--variant {text}: not [LABEL=]SECTION.OPTION=VALUE", "e.g. core.mp_start_method=forkserver"
        )
    return label or value, {option: value}


def _other(text: str) -> Subject:
    label, separator, path = text.rpartition("=")
    if separator and not label:
        raise UsageError(f"--against {text}: no label before the =")
    # Not resolved: a link into a venv stays a link.
    python = Path(path).expanduser().absolute()
    if not python.is_file():
        raise UsageError(f"--against {path}: no such file", "give the path of a Python that has Airflow")
    description = describe_python(python)
    return Subject(label or description["airflow"], python, description)
