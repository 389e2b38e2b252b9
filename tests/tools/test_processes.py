# SPDX-License-Identifier: Apache-2.0
"""Real process trees: nothing the tool starts may outlive it, whatever ends first."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.processes import Guarded

SCRIPTS = Path(processes.__file__).resolve().parents[2]
PATIENCE = 300

# A tree of four: itself, a child that ignores SIGTERM, a daemon (forked twice, own session) and its child.
# A byte on stdout says that all of them run; end of file there says that none of them does any more.
TREE = """
import os, signal, sys
ready, there = os.pipe()
def stay():
    os.write(there, b"r")
    while True:
        signal.pause()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stay()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.fork()
        stay()
    os._exit(0)
for _ in range(3):
    os.read(ready, 1)
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"r")
if sys.argv[1] == "end":
    sys.exit(7)
stay()
"""


class Tree:
    """A command that starts a tree of processes, and their stdout."""

    def __init__(self, marker: str):
        self.marker = marker
        self.reader, self.stdout = os.pipe()

    def command(self, how: str = "stay") -> list[str]:
        return [sys.executable, "-c", TREE, how, self.marker]

    def start(self, how: str = "stay", **options) -> Guarded:
        process = Guarded.start(self.command(how), stdout=self.stdout, **options)
        self.wait_until_ready()
        return process

    def wait_until_ready(self) -> None:
        os.close(self.stdout)
        assert select.select([self.reader], [], [], PATIENCE)[0]
        assert os.read(self.reader, 1) == b"r"

    def gone(self, within: float = 0) -> bool:
        """Return whether no process has that stdout any more, or stops to have it in so many seconds."""
        poll = select.poll()
        poll.register(self.reader, 0)
        return [event for _, event in poll.poll(within * 1000)] == [select.POLLHUP]


@pytest.fixture
def tree(tmp_path):
    tree = Tree(f"marker-{tmp_path}")
    yield tree
    os.close(tree.reader)
    for process in psutil.process_iter(["cmdline"]):
        if tree.marker in (process.info["cmdline"] or []):
            process.kill()


@pytest.fixture
def tool(tree):
    """Start a tool in a process of its own, that runs the tree and another command."""
    started = []

    def start(how="stay", before="", grace=10.0):
        code = (
            f"import os, signal, sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
            "from patchsetlib.shell.processes import Guarded\n"
            f"{before}\n"
            f"tree = Guarded.start(sys.argv[1:], grace={grace})\n"
            "other = Guarded.start(['sleep', '600'])\n"
            "tree.wait()\n"
        )
        command = [sys.executable, "-c", code, *tree.command(how)]
        started.append(subprocess.Popen(command, stdout=tree.stdout))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_exit_code_is_passed_on():
    assert processes.run(["sh", "-c", "exit 7"]).returncode == 7
    assert processes.run(["true"]).returncode == 0


def test_environment_and_directory_reach_the_command_and_not_the_guard(tmp_path):
    (tmp_path / "psutil.py").write_text("raise SystemExit('the guard imported the command\\'s psutil')")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "ONLY": "this"}
    done = processes.run(["sh", "-c", "echo $ONLY; pwd; echo err >&2"], env=env, cwd=tmp_path, capture=True)
    assert (done.stdout.split(), done.stderr) == (["this", str(tmp_path)], "err\n")


def test_log_is_appended_to(tmp_path):
    log = tmp_path / "logs" / "a.log"
    processes.run(["sh", "-c", "echo one; echo two >&2"], log=log)
    processes.run(["echo", "three"], log=log)
    assert log.read_text() == "one\ntwo\nthree\n"


def test_stdin_is_empty():
    assert processes.run(["cat"], capture=True).stdout == ""


def test_command_does_not_inherit_pythons_signals_and_descriptors():
    # A Python that starts ignores SIGPIPE and SIGXFSZ itself, so another program must look.
    done = processes.run(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], capture=True)
    assert [line.split()[1].strip("0") for line in done.stdout.splitlines()] == ["", ""]
    code = "import os; print(*sorted(os.listdir('/proc/self/fd'), key=int))"
    fds = processes.run([sys.executable, "-c", code], capture=True).stdout.split()
    assert fds == ["0", "1", "2", "3"], "3 is the listing itself"


@pytest.mark.parametrize("command", ["no-such-command-anywhere", "/", __file__])
def test_command_that_cannot_be_run(command, tmp_path):
    with pytest.raises(PatchsetError, match="cannot run"):
        processes.run([command])
    with pytest.raises(PatchsetError, match=r"cannot run true in .*missing.*No such file"):
        processes.run(["true"], cwd=tmp_path / "missing")


def test_pid_is_the_commands_own(tree):
    with tree.start() as process:
        assert process.poll() is None
        assert tree.marker in psutil.Process(process.pid).cmdline()
        os.kill(process.pid, signal.SIGUSR1)
        assert process.wait() == -signal.SIGUSR1
        assert process.poll() == -signal.SIGUSR1


def test_timeout_ends_everything(tree):
    with pytest.raises(subprocess.TimeoutExpired), tree.start() as process:
        process.wait(0.1)
    assert tree.gone()
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sleep", "600"], timeout=0.1)


def test_nothing_is_left_when_the_command_ends(tree):
    assert tree.start("end").wait() == 7
    assert tree.gone()


def test_nothing_is_left_when_the_command_is_killed(tree):
    process = tree.start()
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert tree.gone()


def test_stop_leaves_nothing(tree):
    process = tree.start()
    assert process.stop() == -signal.SIGTERM
    assert tree.gone()
    assert process.stop() == -signal.SIGTERM, "a second stop changes nothing"


def test_stop_lets_the_command_end_its_own_way(tree):
    code = "trap 'exit 3' TERM; printf r; while :; do sleep 0.05; done"
    process = Guarded.start(["sh", "-c", code], stdout=tree.stdout)
    tree.wait_until_ready()
    assert process.stop() == 3


def test_stop_kills_what_ignores_sigterm_after_the_grace(tree):
    assert tree.start("deaf").stop(grace=0.1) == -signal.SIGKILL
    assert tree.gone()


def test_nothing_is_left_when_the_block_raises(tree):
    with pytest.raises(ZeroDivisionError), tree.start():
        raise ZeroDivisionError
    assert tree.gone()


def test_a_signal_to_the_guard_ends_nothing_and_leaves_nothing(tree):
    process = tree.start()
    guard = psutil.Process(process.pid).parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        guard.send_signal(number)
    assert process.poll() is None
    process.stop()
    assert tree.gone()


@pytest.mark.parametrize(("how", "grace"), [("stay", 10.0), ("deaf", 0.1)])
def test_nothing_is_left_when_the_tool_is_killed(tree, tool, how, grace):
    process = tool(how, grace=grace)
    tree.wait_until_ready()
    process.kill()
    assert tree.gone(PATIENCE)


@pytest.mark.parametrize("heard", [0, 1], ids=["nothing", "half of the answer"])
def test_nothing_is_left_when_the_tool_is_killed_while_it_starts_the_command(tree, tool, heard):
    """The guard runs, and the tool has not heard all of its first answer."""
    process = tool(
        before="def killed(self, command, guard, connection):\n"
        f"    connection.recv({heard})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Guarded.__init__ = killed"
    )
    os.close(tree.stdout)
    assert process.wait() == -signal.SIGKILL
    assert tree.gone(PATIENCE)
