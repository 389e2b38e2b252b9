# SPDX-License-Identifier: Apache-2.0
"""
Start commands so that none of their processes outlives the tool, however either of them ends.

See ``guard`` for how. Everything the tool starts and waits for goes through here, except git.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patchsetlib.shell.errors import PatchsetError

_GUARD = Path(__file__).with_name("guard.py")
_HELD_BACK = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
DEFAULT_GRACE = 10.0
_NEUTRAL = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH")


def neutral_environment() -> dict[str, str]:
    """Return the user's variables but those that configure Airflow, Python, pytest, proxies ..."""
    return {name: os.environ[name] for name in _NEUTRAL if name in os.environ}


@dataclass(frozen=True)
class Completed:
    """A command that has ended."""

    command: list[str]
    returncode: int
    """Exit code; negative: the signal that ended it."""
    stdout: str = ""
    """What it wrote, if it was captured."""
    stderr: str = ""


class Guarded:
    """
    A running command. Use it as a context manager, or call ``stop``.

    ``pid`` is the command's own process id, not the guard's.
    """

    def __init__(self, command: list[str], guard: subprocess.Popen, liveness: int, status: int):
        self.command = command
        self.pid = 0
        self.returncode: int | None = None
        self.left: list[int] = []
        """Process ids that could not be killed; only a broken device or mount makes such processes."""
        self._guard = guard
        self._liveness = liveness
        self._status = status
        self._text = b""
        self._errno = 0
        self._final: int | None = None
        self._ended = False

    @classmethod
    def start(
        cls,
        cmd: Sequence[str | os.PathLike],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        log: Path | None = None,
        stdin: int | IO | None = subprocess.DEVNULL,
        stdout: int | IO | None = None,
        stderr: int | IO | None = None,
        grace: float = DEFAULT_GRACE,
        foreground: bool = False,
        hold: Sequence[int] = (),
    ) -> Guarded:
        """
        Start ``cmd``.

        :param env: its whole environment; the tool's own if not given
        :param log: file that its output is appended to; without it, it has the tool's own stdout and stderr
        :param stdin: as for subprocess, but nothing by default; ``None`` passes the tool's own
        :param grace: seconds between SIGTERM and SIGKILL, when the tool goes away
        :param foreground: leave it in the terminal's session, so that Ctrl-C reaches it directly
        :param hold: file descriptors of locks, which the guard keeps open until all processes have ended,
            also when the tool has gone before
        :raises PatchsetError: if the command or ``cwd`` does not exist or cannot be run
        """
        command = [os.fspath(part) for part in cmd]
        with ExitStack() as cleanup:
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                stdout = stderr = cleanup.enter_context(open(log, "ab"))
            guard_liveness, liveness = os.pipe()
            cleanup.callback(os.close, guard_liveness)
            status, guard_status = os.pipe()
            cleanup.callback(os.close, guard_status)
            arguments = [str(guard_liveness), str(guard_status), str(grace), "1" if foreground else "0"]
            # Held back until the guard is ready, so that no signal can end it between its start and then.
            previous = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
            try:
                guard = subprocess.Popen(
                    # -I: what the command's environment says to Python is not for the guard.
                    [sys.executable, "-I", str(_GUARD), *arguments, *command],
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=(guard_liveness, guard_status, *hold),
                    start_new_session=not foreground,
                )
                self = cls(command, guard, liveness, status)
            except OSError as e:
                os.close(liveness)
                os.close(status)
                where = f" in {cwd}" if cwd is not None else ""
                raise PatchsetError(f"cannot run {command[0]}{where}: {e.strerror}") from e
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        try:
            self._await_pid()
        except BaseException:
            self.stop()
            raise
        return self

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def poll(self) -> int | None:
        """Return the exit code if the command and all of its descendants have ended, else ``None``."""
        self._read(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until the command has ended and nothing of it is left; return its exit code (negative: signal).

        :param timeout: seconds
        :raises subprocess.TimeoutExpired: if it runs longer; it goes on running
        """
        if not self._read(timeout):
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, if it still runs."""
        if self.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def stop(self, grace: float | None = None) -> int:
        """
        End the command and all of its descendants, and return its exit code.

        The command gets SIGTERM, then SIGKILL after ``grace`` seconds, as does what it leaves behind
        (that with two seconds between). Does nothing if all have ended already.
        """
        if not self._ended:
            try:
                if grace is not None:
                    os.write(self._liveness, f"{grace}\n".encode())
                else:
                    self._close_liveness()
            except BrokenPipeError:
                pass
        return self.wait()

    def _close_liveness(self) -> None:
        if self._liveness >= 0:
            os.close(self._liveness)
            self._liveness = -1

    def _await_pid(self) -> None:
        while not self.pid and not self._ended:
            self._read(None, once=True)
        if not self.pid:
            reason = os.strerror(self._errno) if self._errno else "killed"
            raise PatchsetError(f"cannot run {self.command[0]}: {reason}")

    def _read(self, timeout: float | None, once: bool = False) -> bool:
        """Take in what the guard says, for at most ``timeout`` seconds; return whether it has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            poll = select.poll()
            poll.register(self._status, select.POLLIN)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not poll.poll(None if left is None else left * 1000):
                return False
            data = os.read(self._status, 4096)
            if data:
                self._understand(data)
            else:
                self._end()
            if once:
                break
        return self._ended

    def _understand(self, data: bytes) -> None:
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            word, *numbers = line.split()
            values = [int(number) for number in numbers]
            if word == b"pid":
                self.pid = values[0]
            elif word == b"error":
                self._errno = values[0]
            elif word == b"left":
                self.left = values
            elif word == b"status":
                self._final = values[0]

    def _end(self) -> None:
        guard_code = self._guard.wait()
        # Without a last word the guard itself was killed, and its own end is all there is to report.
        self.returncode = self._final if self._final is not None else guard_code
        self._ended = True
        os.close(self._status)
        self._close_liveness()


def run(
    cmd: Sequence[str | os.PathLike],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    log: Path | None = None,
    capture: bool = False,
    timeout: float | None = None,
    hold: Sequence[int] = (),
) -> Completed:
    """
    Run ``cmd`` to its end; nothing of it is left afterwards, nor when this is interrupted.

    :param env: its whole environment; the tool's own if not given
    :param log: file that its output is appended to
    :param capture: return its output as text instead
    :param timeout: seconds
    :param hold: file descriptors of locks, as for ``Guarded.start``
    :raises PatchsetError: if it cannot be run
    :raises subprocess.TimeoutExpired: if it took longer, after ending it
    """
    command = [os.fspath(part) for part in cmd]
    with ExitStack() as cleanup:
        # Files rather than pipes: a pipe would have to be drained while waiting.
        out = cleanup.enter_context(tempfile.TemporaryFile()) if capture else None
        err = cleanup.enter_context(tempfile.TemporaryFile()) if capture else None
        with Guarded.start(command, env=env, cwd=cwd, log=log, stdout=out, stderr=err, hold=hold) as process:
            returncode = process.wait(timeout)
        texts = []
        for file in (out, err):
            if file is not None:
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return Completed(command, returncode, *texts)
