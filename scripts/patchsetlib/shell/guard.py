# SPDX-License-Identifier: Apache-2.0
"""
The process between the tool and every command it starts; ``processes`` runs this file as a script.

It leaves nothing behind: not when the tool is killed with SIGKILL, not when the command ends before
its children do (the workers of LocalExecutor outlive a killed scheduler). For that it is a child
subreaper, so that orphans of the command become its own children, and it holds the read end of a pipe
whose write end only the tool holds, so that it hears of the tool's end whatever caused it.

Usage: ``guard.py LIVENESS_FD STATUS_FD GRACE FOREGROUND COMMAND...``

- LIVENESS_FD: end of file, or a line with a grace in seconds, means "end the command". SIGTERM does too.
- STATUS_FD: told ``pid N`` or ``error ERRNO`` first, ``status N`` (negative: the signal) at the end,
  and ``left PID...`` before that if processes could not be killed.
- GRACE: seconds between SIGTERM and SIGKILL where nothing else was asked for.
- FOREGROUND: ``1`` leaves the command in the terminal session of the tool, ``0`` gives it a new one.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

# Seconds that what the command left behind gets between SIGTERM and SIGKILL.
LEFTOVER_GRACE = 2.0
# Seconds to wait for the kernel to end killed processes, which takes long only in a broken device or mount.
KILL_PATIENCE = 10.0
PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopt orphaned descendants. Only Linux can; elsewhere processes that leave the tree may escape."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Guard:
    """Runs one command and ends all of its descendants."""

    def __init__(self, liveness: int, status: int, grace: float):
        self.liveness = liveness
        self.status = status
        self.grace = grace
        self.stopping = False
        self.returncode: int | None = None
        self.pid = 0
        self.psutil: Any = None
        self.wakeup, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            # What was ignored from the start stays so, here and in the command: nohup, a shell's "&".
            if number in (signal.SIGTERM, signal.SIGCHLD) or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.on_signal)
        self.poll = select.poll()
        self.poll.register(self.wakeup, select.POLLIN)
        self.poll.register(liveness, select.POLLIN)

    def on_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self.stopping = True

    def tell(self, line: str) -> None:
        try:
            os.write(self.status, f"{line}\n".encode())
        except OSError:
            pass  # The tool is gone; there is nobody to tell.

    def spawn(self, command: list[str]) -> None:
        # Only started through subprocess: this process collects all of its children itself.
        self.process = subprocess.Popen(command)
        self.pid = self.process.pid

    def reap(self) -> bool:
        """Collect every child that has ended; return whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)

    def wait(self, seconds: float | None = None) -> None:
        """Sleep until a signal or the tool says something, at most ``seconds``."""
        ready = self.poll.poll(None if seconds is None else max(0, seconds) * 1000 + 1)
        for fd, _ in ready:
            data = os.read(fd, 4096)
            if fd == self.liveness:
                self.stopping = True
                if data:
                    self.grace = float(data.split()[0])
                else:
                    self.poll.unregister(fd)

    def run(self) -> None:
        """Return when the command has ended, by itself or because that was asked for."""
        while self.reap() and self.returncode is None and not self.stopping:
            self.wait()
        if self.returncode is None:
            # Only the command itself is asked at first: it may have an orderly way to end its children.
            os.kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + self.grace
            while self.reap() and self.returncode is None and time.monotonic() < deadline:
                self.wait(deadline - time.monotonic())

    def sweep(self) -> list[int]:
        """End everything that is left, and return the process ids of what would not go."""
        if not self.reap():
            return []
        me = self.psutil.Process()
        asked = set()
        started = time.monotonic()
        kill_at = started + (0 if self.returncode is None else LEFTOVER_GRACE)
        while self.reap() and time.monotonic() < kill_at + KILL_PATIENCE:
            killing = time.monotonic() >= kill_at
            for process in me.children(recursive=True):
                try:
                    if killing:
                        process.kill()
                    elif process not in asked:
                        asked.add(process)
                        process.terminate()
                except self.psutil.Error:
                    pass
            # Also look without being woken: a child of a child that ends does not wake this process, and
            # a child may fork between being listed and being killed.
            self.wait(0.05)
        return [process.pid for process in me.children(recursive=True)] if self.reap() else []


def main(arguments: list[str]) -> int:
    liveness, status = int(arguments[0]), int(arguments[1])
    for fd in (liveness, status):
        os.set_inheritable(fd, False)
    become_subreaper()
    guard = Guard(liveness, status, float(arguments[2]))
    foreground = arguments[3] == "1"
    if foreground:
        # For as long as this process is in the terminal's foreground group, its keys are not meant for it.
        # A handler, since the command would inherit that they are ignored.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)
    # The tool blocked these, so that none could end this process before it was ready.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        guard.spawn(arguments[4:])
    except OSError as e:
        guard.tell(f"error {e.errno}")
        return 127
    if foreground:
        # The command stays in that group and this process does not: Ctrl-C, Ctrl-Z and a kill of the whole
        # group leave it alive to clean up.
        os.setsid()
    guard.tell(f"pid {guard.pid}")
    # Now, not when it is needed: by then the environment of the tool may have been removed. After the start
    # of the command, which need not wait for it.
    guard.psutil = importlib.import_module("psutil")
    guard.run()
    left = guard.sweep()
    if left:
        guard.tell(f"left {' '.join(map(str, left))}")
    guard.tell(f"status {guard.returncode if guard.returncode is not None else -signal.SIGKILL}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
