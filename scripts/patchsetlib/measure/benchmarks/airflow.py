# SPDX-License-Identifier: Apache-2.0
"""Full deployments for the benchmarks that need them, each with a database of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.measure import workload
from patchsetlib.measure.benchmarks import postgres as benchpostgres
from patchsetlib.measure.benchmarks.subjects import Subject
from patchsetlib.measure.workload import Workload

DATABASES = ("sqlite", "postgresql")


class Deployments:
    """Deploys one subject after the other, below ``directory``."""

    def __init__(self, directory: Path, server: benchpostgres.Server | None = None):
        self.directory = directory
        self._server = server
        self._migrated: dict[str, Path] = {}

    def measure(self, subject: Subject, home: Path, load: Workload, **how) -> dict:
        """
        Run ``load`` on ``subject``; ``how`` is passed on to ``workload.measure``.

        :raises PatchsetError: as ``workload.measure``
        """
        if self._server is not None:
            drivers = benchpostgres.drivers(subject.python, subject.description["python"])
            how |= {"database": self._server.new_database(), "env": {"PYTHONPATH": str(drivers)}}
        else:
            how["migrated"] = self._sqlite(subject)
        how["config"] = dict(how.get("config") or {}) | dict(subject.config)
        return workload.measure(subject.label, subject.python, home, load, **how)

    def _sqlite(self, subject: Subject) -> Path:
        """Return a migrated file; versions of Airflow differ in their schema, the patches do not touch it."""
        if subject.airflow not in self._migrated:
            place = self.directory / f"migrated-{subject.airflow}"
            self._migrated[subject.airflow] = workload.migrate(subject.python, place)
        return self._migrated[subject.airflow]


@contextmanager
def deployments(subjects: Sequence[Subject], database: str, directory: Path) -> Iterator[Deployments]:
    """
    Make what deployments need that live in ``directory``, for as long as the context lasts.

    :param database: one of ``DATABASES``
    """
    if database == "sqlite":
        yield Deployments(directory)
        return
    with benchpostgres.server(directory) as server:
        # Now, since otherwise it would be found out only after the runs of those before.
        for subject in subjects:
            benchpostgres.drivers(subject.python, subject.description["python"])
        yield Deployments(directory, server)
