# SPDX-License-Identifier: Apache-2.0
"""
The process between the tool and a command that starts Airflow; ``processes`` runs this file as a script.

It leaves nothing behind: not when the tool is killed with SIGKILL, not when the command ends before its
children do (the workers of LocalExecutor outlive a killed scheduler). For that it is a child subreaper, so
that orphans of the command become its own children, and it holds one end of a socket whose other end only the
tool holds, so that it hears of the tool's end whatever caused it.

Usage: ``guard.py SOCKET GRACE COMMAND...``

- SOCKET: end of file means "end the command"; a number before it is the grace to do that with. The guard
  answers with the command's process id or why it cannot run, and at the end with its exit code (negative: the
  signal).
- GRACE: seconds between SIGTERM and SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil

# Seconds that what the command has left behind gets between SIGTERM and SIGKILL.
LEFTOVER_GRACE = 2.0
# Seconds to wait for the kernel to end killed processes; only a broken device or mount makes it take so long.
KILL_PATIENCE = 10.0
PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopt orphaned descendants. Only Linux can; elsewhere processes that leave the tree may escape."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_tool(tool: socket.socket, grace: float, pid: int, ended: threading.Event) -> None:
    """Wait until the tool closes its end, then ask the command to end, and kill it if it does not."""
    said = b""
    with suppress(OSError):  # what the tool has not read of the answers resets the connection
        while data := tool.recv(64):
            said += data
    # Only the command itself is asked at first: it may have an orderly way to end its children.
    for number, seconds in ((signal.SIGTERM, float(said or grace)), (signal.SIGKILL, None)):
        if not ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        ended.wait(seconds)


def answer(tool: socket.socket, text: object) -> None:
    with suppress(OSError):  # the tool is gone; there is nobody to tell
        tool.sendall(f"{text}\n".encode())


def reap() -> bool:
    """Collect the children that have ended; return whether any is left."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def sweep(grace: float) -> None:
    """End everything that the command has left behind."""
    kill_at = time.monotonic() + grace
    asked = set()
    while reap() and time.monotonic() < kill_at + KILL_PATIENCE:
        # Each time anew: a child may fork between being listed and being ended.
        for process in psutil.Process().children(recursive=True):
            try:
                if time.monotonic() >= kill_at:
                    process.kill()
                elif process not in asked:
                    asked.add(process)
                    process.terminate()
            except psutil.NoSuchProcess:
                pass
        time.sleep(0.02)


def main(descriptor: int, grace: float, command: list[str]) -> int:
    tool = socket.socket(fileno=descriptor)
    tool.set_inheritable(False)
    become_subreaper()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Whoever signals all processes means the tool and the command, which does not inherit a handler.
        signal.signal(number, lambda *_: None)
    try:
        # Kept, or subprocess would collect it: that is done below, for all children.
        process = subprocess.Popen(command)
    except OSError as e:
        answer(tool, e.strerror)
        return 127
    pid = process.pid
    answer(tool, pid)
    ended = threading.Event()
    threading.Thread(target=end_with_tool, args=(tool, grace, pid, ended), daemon=True).start()
    child = status = 0
    while child != pid:
        child, status = os.wait()
    ended.set()
    code = os.waitstatus_to_exitcode(status)
    sweep(0.0 if code == -signal.SIGKILL else LEFTOVER_GRACE)
    answer(tool, code)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
