# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the benchmark's own, from the programs of the machine, for as long as it runs."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from patchsetlib.measure.instance import free_ports
from patchsetlib.shell import processes, ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display, work_dir
from patchsetlib.shell.processes import Guarded

_PROGRAMS = ("initdb", "postgres", "createdb")
_DEBIAN = Path("/usr/lib/postgresql")
_USER = "airflow"
# For Airflow's two kinds of engines, the usual one and the asynchronous; Airflow does not bring them.
_DRIVERS = ("psycopg2-binary==2.9.11", "asyncpg==0.30.0")
_TIMEOUT = 60.0


def find_programs(debian: Path = _DEBIAN) -> Path:
    """
    Return the directory of the newest PostgreSQL server on this machine.

    :raises PatchsetError: if there is none
    """

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.parent.name)]

    found = sorted(debian.glob("*/bin"), key=version, reverse=True)
    # On PATH it may be a link; the server looks for its other parts beside the real one.
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    for directory in found:
        if all(os.access(directory / program, os.X_OK) for program in _PROGRAMS):
            return directory
    raise PatchsetError(
        "no PostgreSQL server on this machine",
        "install it: apt-get install postgresql, or use --database sqlite",
    )


def drivers(python: Path, version: str) -> Path:
    """
    Return a directory with the drivers for ``PYTHONPATH``; the environments themselves stay as they are.

    :param version: ``X.Y.Z`` of ``python``
    :raises PatchsetError: if they cannot be installed
    """
    minor = ".".join(version.split(".")[:2])
    key = "-".join(driver.replace("==", "-") for driver in _DRIVERS)
    place = work_dir() / f"postgresql-drivers-{minor}-{key}"
    if not place.exists():
        with ui.step(f"installing the PostgreSQL drivers for Python {minor}"):
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".drivers-") as temporary:
                target = Path(temporary, "drivers")
                options = ("--no-deps", "--only-binary", ":all:", "--python", python, "--target", target)
                uvtool.uv("pip", "install", *options, *_DRIVERS)
                os.replace(target, place)
    return place


def _owner() -> pwd.struct_passwd | None:
    """Return the user that the server is to run as, if it is another one: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PatchsetError("PostgreSQL does not run as root, and there is no user postgres", "run it as a user")


class Server:
    """A running server."""

    def __init__(self, programs: Path, port: int, password: str, log: Path):
        self.programs = programs
        self.port = port
        self.log = log
        self._password = password
        self._count = 0

    def client(self, program: str, *args: str) -> list[str]:
        """Return the command line of a client program for this server."""
        to = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _USER]
        return [str(self.programs / program), *to, *args]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "PGPASSWORD": self._password}

    def new_database(self) -> str:
        """Make an empty database, and return its SQLAlchemy URL."""
        self._count += 1
        name = f"airflow{self._count}"
        done = processes.run(self.client("createdb", name), env=self.environment, capture=True)
        if done.returncode:
            raise PatchsetError(f"cannot make a database: {done.stderr.strip()}", f"see {display(self.log)}")
        return f"postgresql+psycopg2://{_USER}:{self._password}@127.0.0.1:{self.port}/{name}"


@contextmanager
def server(directory: Path) -> Iterator[Server]:
    """
    Run a server whose data live below ``directory``, or in the system's directory for temporary files.

    It listens on this machine only, and asks for a password.

    :raises PatchsetError: if there is no PostgreSQL, or it does not start
    """
    programs = find_programs()
    owner = _owner()
    password = secrets.token_hex(16)
    with ExitStack() as stack:
        place = _place(stack, directory, owner)
        secret = place / "password"
        secret.write_text(password, encoding="utf-8")
        if owner:
            os.chown(secret, owner.pw_uid, owner.pw_gid)
        data, log = place / "data", directory / "postgresql.log"
        command = [*_as(owner), programs / "initdb", "-D", data, "-U", _USER, "-E", "UTF8", "--locale=C"]
        _run([*command, "--auth=scram-sha-256", f"--pwfile={secret}"], place, log)
        secret.unlink()
        (port,) = free_ports(1)
        # Ten processes of Airflow have pools of several connections each.
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
        settings |= {"max_connections": 300}
        command = [*_as(owner), programs / "postgres", "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        found = Server(programs, port, password, log)
        with ui.step("starting PostgreSQL"):
            running = stack.enter_context(
                Guarded.start(command, env=found.environment, cwd=place, log=log, grace=5)
            )
            _wait(found, running)
        yield found


def _place(stack: ExitStack, directory: Path, owner: pwd.struct_passwd | None) -> Path:
    """Return a directory for the data that the server's user can reach; it goes with ``stack``."""
    parent: Path | None = directory.absolute()
    if owner and any(not each.stat().st_mode & 0o001 for each in (parent, *parent.parents)):
        parent = None
    temporary = tempfile.TemporaryDirectory(prefix="postgresql-", dir=parent, ignore_cleanup_errors=True)
    place = Path(stack.enter_context(temporary))
    if owner:
        os.chown(place, owner.pw_uid, owner.pw_gid)
    return place


def _as(owner: pwd.struct_passwd | None) -> list[str]:
    if owner is None:
        return []
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]


def _run(command: list, cwd: Path, log: Path) -> None:
    done = processes.run(
        command, env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}, cwd=cwd, log=log
    )
    if done.returncode:
        raise PatchsetError("PostgreSQL: initdb failed", f"see {display(log)}")


def _wait(found: Server, running: Guarded) -> None:
    deadline = time.monotonic() + _TIMEOUT
    command = found.client("createdb", "ready")
    while processes.run(command, env=found.environment, capture=True).returncode:
        if running.poll() is not None or time.monotonic() > deadline:
            raise PatchsetError("PostgreSQL did not start", f"see {display(found.log)}")
        time.sleep(0.2)
