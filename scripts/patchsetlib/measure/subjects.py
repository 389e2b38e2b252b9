# SPDX-License-Identifier: Apache-2.0
"""What a benchmark compares: stock, the series or its beginnings, other bases, any installed Airflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from patchsetlib.installs import environment
from patchsetlib.patches import base as bases
from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import work_dir

_DESCRIBE = """
import hashlib, importlib.metadata, json, sys
distributions = dict(sorted((d.name, d.version) for d in importlib.metadata.distributions()))
lines = []
for name in distributions:
    if name.startswith("apache-airflow"):
        record = importlib.metadata.distribution(name).read_text("RECORD") or ""
        lines += [line for line in record.splitlines() if line.startswith("airflow/") and ".py," in line]
content = hashlib.sha256("\\n".join(sorted(lines)).encode()).hexdigest() if lines else None
print(json.dumps({"python": sys.version.split()[0], "content": content, "distributions": distributions}))
"""


def describe(python: Path) -> dict:
    """
    Return what tells an interpreter and its Airflow from another one: versions of Python and of all
    distributions, and a hash of Airflow's Python files (``content``; None without a ``RECORD``).

    :raises PatchsetError: if it does not run, or has no Airflow
    """
    done = processes.run([python, "-I", "-c", _DESCRIBE], capture=True)
    if done.returncode:
        raise PatchsetError(f"{python} does not run: {last_line(done)}")
    found = json.loads(done.stdout)
    found["airflow"] = found["distributions"].get("apache-airflow-core")
    if found["airflow"] is None:
        raise PatchsetError(f"{python} has no apache-airflow-core")
    return found


def last_line(done: processes.Completed) -> str:
    """Return what a command that failed said last."""
    return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"


@dataclass(frozen=True)
class Subject:
    """One Airflow to measure."""

    label: str
    """Its column in the table."""
    python: Path
    description: dict
    """See ``describe``."""
    patches: tuple[str, ...] = ()
    """File names of the patches in it; none for stock, and for what is not of this repository."""
    commit: str | None = None
    """The last of these patches as a commit on the source tree made from the sdist."""
    config: dict[str, str] = field(default_factory=dict)
    """What is configured unlike the other subjects, by ``section.option``."""

    @property
    def airflow(self) -> str:
        """The release, without the local part that patched wheels have."""
        return self.description["airflow"].partition("+")[0]

    def as_json(self, reference: Subject) -> dict:
        """Return it fit for JSON; of its distributions only those that differ from those of ``reference``."""
        found = {"patches": list(self.patches), "commit": self.commit, "config": self.config}
        own, common = self.description["distributions"], reference.description["distributions"]
        if self is not reference:
            differing = {k: own.get(k) for k in sorted({*own, *common}) if own.get(k) != common.get(k)}
            own = {f"unlike {reference.label}": differing}
        return found | self.description | {"distributions": own}

    def check(self) -> None:
        """Raise ``PatchsetError`` if the installed Airflow has been exchanged since the benchmark began."""
        if describe(self.python) != self.description:
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
    :param against: names of other bases, both stock and patched, and ``[LABEL=]PATH`` of any other Python
    """
    # First, as it is the quickest to fail.
    settings = [_variant(text) for text in variants]
    other_bases = [text for text in against if text in bases.all_bases()]
    others = [_installed(text) for text in against if text not in other_bases]
    found = [_of(base, "stock", False, python_version)]
    if each:
        for length in range(1, len(series.names(base))):
            label = "patch 1" if length == 1 else f"patches 1-{length}"
            found.append(_of(beginning(base, length), label, True, python_version))
    patched = _of(base, "patched", True, python_version)
    found += [patched, *(replace(patched, label=label, config=config) for label, config in settings)]
    for other in map(bases.load, other_bases):
        found.append(_of(other, f"stock {other.name}", False, python_version))
        found.append(_of(other, f"patched {other.name}", True, python_version))
    found += others
    labels = [subject.label for subject in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(f"two are called {', '.join(twice)}", "give them other labels: LABEL=...")
    return found


def beginning(base: Base, length: int) -> Base:
    """
    Return a base whose series is the first ``length`` patches of that of ``base``.

    It is a copy below the work directory, which later changes of the series leave alone.
    """
    name = f"{base.name}-first-{length}"
    place = work_dir() / name / "base"
    shutil.rmtree(place, ignore_errors=True)
    # Beside it as in the repository, since a series may name patches of common.
    for directory in (base.directory, base.directory.parent / "common"):
        if directory.is_dir():
            shutil.copytree(directory, place / directory.name)
    copy = replace(base, name=name, directory=place / base.directory.name)
    names = series.names(base)[:length]
    copy.series_file.write_text("".join(f"{patch}\n" for patch in names), encoding="utf-8")
    return copy


def _of(base: Base, label: str, patched: bool, python_version: str | None) -> Subject:
    python = environment.python(base, patched=patched, python_version=python_version)
    subject = Subject(label, python, describe(python))
    if not patched:
        return subject
    commit = git("rev-parse", "HEAD", cwd=source.cached_tree(base, patched=True)).strip()
    return replace(subject, patches=tuple(series.names(base)), commit=commit)


def _variant(text: str) -> tuple[str, dict[str, str]]:
    setting, _, value = text.rpartition("=")
    label, _, option = setting.rpartition("=")
    section, _, name = option.partition(".")
    if not (section and name and value):
        raise UsageError(
            f"--variant {text}: not [LABEL=]SECTION.OPTION=VALUE", "e.g. core.mp_start_method=forkserver"
        )
    return label or value, {option: value}


def _installed(text: str) -> Subject:
    label, _, path = text.rpartition("=")
    # Not resolved: a link into a venv stays a link.
    python = Path(path).expanduser().absolute()
    if not python.is_file():
        raise UsageError(
            f"--against {path}: no such file, and no base of that name",
            f"give the path of a Python that has Airflow, or one of {', '.join(bases.all_bases())}",
        )
    description = describe(python)
    return Subject(label or description["airflow"], python, description)
