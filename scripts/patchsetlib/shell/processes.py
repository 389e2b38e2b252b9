# SPDX-License-Identifier: Apache-2.0
"""
Starts what starts Airflow, so that none of its processes outlives the tool, however either of them ends.

See ``guard`` for how. git, uv and the like are started with ``subprocess``; they leave nothing behind.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NoReturn

from patchsetlib.shell.errors import PatchsetError

Completed = subprocess.CompletedProcess[str]
_GUARD = Path(__file__).with_name("guard.py")
_NEUTRAL = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH")


def neutral_environment() -> dict[str, str]:
    """Return the user's variables but those that configure Airflow, Python, pytest, proxies ..."""
    return {name: os.environ[name] for name in _NEUTRAL if name in os.environ}


class Guarded:
    """
    A running command. Use it as a context manager, or call ``stop``.

    ``pid`` is the command's own process id, not the guard's.
    """

    def __init__(self, command: list[str], guard: subprocess.Popen, connection: socket.socket):
        self.command = command
        self._guard = guard
        self._connection = connection
        self._answers = connection.makefile(encoding="utf-8")
        answer = self._answers.readline().strip()
        if not answer.isdigit():
            raise PatchsetError(f"cannot run {command[0]}: {answer or 'killed'}")
        self.pid = int(answer)
        self.returncode: int | None = None

    @classmethod
    def start(
        cls,
        cmd: Sequence[str | os.PathLike],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        log: Path | None = None,
        stdout: int | IO | None = None,
        stderr: int | IO | None = None,
        grace: float = 10.0,
    ) -> Guarded:
        """
        Start ``cmd``.

        :param env: its whole environment; the tool's own if not given
        :param log: file that its output is appended to; without it, it has the tool's own stdout and stderr
        :param grace: seconds between SIGTERM and SIGKILL, when it is stopped or the tool goes away
        :raises PatchsetError: if the command or ``cwd`` does not exist or cannot be run
        """
        command = [os.fspath(part) for part in cmd]
        ours, theirs = socket.socketpair()
        with ExitStack() as cleanup:
            cleanup.enter_context(theirs)
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                stdout = stderr = cleanup.enter_context(open(log, "ab"))
            try:
                guard = subprocess.Popen(
                    # -I: what the command's environment says to Python is not for the guard.
                    [sys.executable, "-I", str(_GUARD), str(theirs.fileno()), str(grace), *command],
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C is for the tool, which ends the command.
                    start_new_session=True,
                )
            except OSError as e:
                ours.close()
                raise PatchsetError(f"cannot run {command[0]} in {cwd}: {e.strerror}") from e
        try:
            return cls(command, guard, ours)
        except BaseException:
            with suppress(OSError):  # the guard has ended
                ours.shutdown(socket.SHUT_WR)
            guard.wait()
            raise

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def poll(self) -> int | None:
        """Return the exit code if the command and all of its descendants have ended, else ``None``."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until the command has ended and nothing of it is left; return its exit code (negative: signal).

        :param timeout: seconds
        :raises subprocess.TimeoutExpired: if it runs longer; it goes on running
        """
        guard_code = self._guard.wait(timeout)
        if self.returncode is None:
            # Without a last word the guard itself was killed, and its own end is all there is to report.
            self.returncode = int(self._answers.readline() or guard_code)
            self._connection.close()
        return self.returncode

    def stop(self, grace: float | None = None) -> int:
        """
        End the command and all of its descendants, and return its exit code.

        The command gets SIGTERM, then SIGKILL after ``grace`` seconds (by default those given at the start),
        as does what it leaves behind (that with two seconds between). Does nothing if all have ended already.
        """
        if self.returncode is None:
            with suppress(OSError):  # the guard has ended
                self._connection.sendall(b"" if grace is None else str(grace).encode())
                self._connection.shutdown(socket.SHUT_WR)
        return self.wait()


def run(
    cmd: Sequence[str | os.PathLike],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    log: Path | None = None,
    capture: bool = False,
    timeout: float | None = None,
) -> Completed:
    """
    Run ``cmd`` to its end; nothing of it is left afterwards, nor when this is interrupted.

    :param env: its whole environment; the tool's own if not given
    :param log: file that its output is appended to
    :param capture: return its output as text instead
    :param timeout: seconds
    :raises PatchsetError: if it cannot be run
    :raises subprocess.TimeoutExpired: if it took longer, after ending it
    """
    # Files rather than pipes: a pipe would have to be drained while waiting.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = {"stdout": out, "stderr": err} if capture else {}
        with Guarded.start(cmd, env=env, cwd=cwd, log=log, **streams) as process:
            returncode = process.wait(timeout)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Completed(process.command, returncode, *texts)


def become(cmd: Sequence[str | os.PathLike], env: Mapping[str, str]) -> NoReturn:
    """
    Go on as ``cmd``: with the tool's process id, terminal and standard streams, and ``env`` as environment.

    :raises PatchsetError: if it cannot be run
    """
    # What Python ignores would stay ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    try:
        os.execvpe(cmd[0], [os.fspath(part) for part in cmd], dict(env))
    except OSError as e:
        raise PatchsetError(f"cannot run {cmd[0]}: {e.strerror}") from e
