# SPDX-License-Identifier: Apache-2.0
"""The database of one run: a file of its own, or a new database on the server of an SQLAlchemy URL."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchsetlib.measure.deployment import Deployment
from patchsetlib.measure.subjects import Subject, last_line
from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import PatchsetError, UsageError

# Scheme and server of a URL; then the name of a database; then options.
_URL = re.compile(r"((\w+)(?:\+\w+)?://[^/?]*)(?:/[^?]*)?(.*)")

_SQL = """
import sys, sqlalchemy
engine = sqlalchemy.create_engine(sys.argv[1], isolation_level="AUTOCOMMIT")
try:
    with engine.connect() as connection:
        connection.exec_driver_sql(sys.argv[2])
except sqlalchemy.exc.DBAPIError as e:
    sys.exit(str(e.orig).strip().splitlines()[0])
"""


def kind(url: str | None) -> str:
    """Return what the URL of a server leads to, e.g. ``postgresql``; ``sqlite`` without one."""
    if url is None:
        return "sqlite"
    match = _URL.fullmatch(url)
    if match is None or match[2] == "sqlite":
        raise UsageError(f"--database {url}: not the URL of a server", "e.g. postgresql+psycopg2://")
    return match[2]


@contextmanager
def database(url: str | None, subject: Subject, directory: Path) -> Iterator[dict]:
    """
    Provide an empty database for one run, and yield the arguments that a ``Deployment`` needs for it.

    Of a server, databases that exist already are left alone: the user must be allowed to create one.

    :param url: None for SQLite; a migrated file is then kept in ``directory`` for later runs
    """
    if url is None:
        yield {"migrated": _migrated(subject, directory)}
        return
    name = f"patchset_{secrets.token_hex(4)}"
    _execute(subject, url, f"CREATE DATABASE {name}")
    try:
        yield {"database": _URL.sub(rf"\1/{name}\3", url)}
    finally:
        _execute(subject, url, f"DROP DATABASE {name}")


def _migrated(subject: Subject, directory: Path) -> Path:
    # Versions of Airflow differ in their schema; the patches do not touch it.
    home = directory / f"migrated-{subject.airflow}"
    empty = Deployment(subject.python, home, dags=home, name=subject.label)
    if not empty.database_file.exists():
        with ui.step(f"migrating a database of Airflow {subject.airflow}"):
            empty.prepare()
    return empty.database_file


def _execute(subject: Subject, url: str, statement: str) -> None:
    # By the measured Airflow's own driver: the tools have none.
    done = processes.run([subject.python, "-I", "-c", _SQL, url, statement], capture=True)
    if done.returncode:
        raise PatchsetError(f"{statement}: {last_line(done)}")
