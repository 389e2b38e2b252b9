# SPDX-License-Identifier: Apache-2.0
"""Real process trees: nothing the tool starts may outlive it, whatever ends first."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError

SCRIPTS = Path(processes.__file__).resolve().parents[1]

# A tree of four: itself, a child that ignores SIGTERM, a daemon (forked twice, own session) and what the
# daemon starts. Each holds an exclusive marker in its command line. "ready" says that all of them run.
TREE = """
import os, signal, subprocess, sys, time
marker, ready, how = sys.argv[1:]
sleeper = [sys.executable, "-c", "import sys, time; time.sleep(600)", marker]
deaf = ("import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "open(sys.argv[2], 'w').close(); time.sleep(600)")
subprocess.Popen([sys.executable, "-c", deaf, marker, ready + ".deaf"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        subprocess.Popen(sleeper)
        open(ready + ".daemon", "w").close()
        time.sleep(600)
    os._exit(0)
os.wait()
while not (os.path.exists(ready + ".deaf") and os.path.exists(ready + ".daemon")):
    time.sleep(0.01)
os.rename(ready + ".daemon", ready)
if how == "end":
    sys.exit(7)
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.rename(ready, ready + ".really")
time.sleep(600)
"""


def eventually(condition, what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s: not {what}"
        time.sleep(0.01)


class Tree:
    """A command that starts a tree of processes, and a way to find what is left of it."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.marker = f"marker-{directory}"
        self.ready = directory / "ready"

    def command(self, how: str = "stay") -> list[str]:
        return [sys.executable, "-c", TREE, self.marker, str(self.ready), how]

    def alive(self) -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            cmdline = process.info["cmdline"] or []
            guard = any(part.endswith("guard.py") for part in cmdline)
            if self.marker in cmdline and not guard and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        return found

    def wait_until_ready(self, suffix: str = "") -> None:
        eventually(Path(str(self.ready) + suffix).exists, "all processes of the tree started")


@pytest.fixture
def tree(tmp_path):
    tree = Tree(tmp_path)
    yield tree
    for pid in tree.alive():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def tool(tree):
    """Start a tool in a process of its own, that runs the tree."""
    started = []

    def start(how="stay", call="run(sys.argv[1:])", **options):
        code = (
            "import sys\n"
            f"sys.path.insert(0, {str(SCRIPTS)!r})\n"
            "from patchsetlib import processes\n"
            f"processes.{call}\n"
        )
        started.append(subprocess.Popen([sys.executable, "-c", code, *tree.command(how)], **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_exit_code_is_passed_on():
    assert processes.run(["sh", "-c", "exit 7"]).returncode == 7
    assert processes.run(["true"]).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_signal_is_passed_on(number):
    assert processes.run(["sh", "-c", f"kill -{number.value} $$"]).returncode == -number


def test_capture():
    done = processes.run(["sh", "-c", "echo out; echo err >&2"], capture=True)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_environment_and_directory_reach_the_command_and_not_the_guard(tmp_path):
    (tmp_path / "psutil.py").write_text("raise SystemExit('the guard imported the command\\'s psutil')")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "ONLY": "this"}
    code = "echo $ONLY; pwd; sleep 600 >/dev/null 2>&1 &"
    done = processes.run(["sh", "-c", code], env=env, cwd=tmp_path, capture=True)
    assert done.stdout.split() == ["this", str(tmp_path)]
    assert done.stderr == ""


def test_log_is_appended_to(tmp_path):
    log = tmp_path / "logs" / "a.log"
    processes.run(["sh", "-c", "echo one; echo two >&2"], log=log)
    processes.run(["echo", "three"], log=log)
    assert log.read_text() == "one\ntwo\nthree\n"


def test_stdin_is_empty_unless_asked_for(tmp_path):
    assert processes.run(["cat"], capture=True).stdout == ""
    source = tmp_path / "in"
    source.write_text("text")
    with open(source) as stdin, processes.Guarded.start(["grep", "-q", "text"], stdin=stdin) as process:
        assert process.wait() == 0


def test_command_does_not_inherit_pythons_signals_and_pipes():
    code = "import os; print(*sorted(os.listdir('/proc/self/fd'), key=int))"
    # A Python that starts ignores SIGPIPE and SIGXFSZ itself, so another program must look.
    done = processes.run(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], capture=True)
    assert [line.split()[1].strip("0") for line in done.stdout.splitlines()] == ["", ""]
    fds = processes.run([sys.executable, "-c", code], capture=True).stdout.split()
    assert fds == ["0", "1", "2", "3"], "3 is the listing itself"


@pytest.mark.parametrize("command", ["no-such-command-anywhere", "/", __file__])
def test_command_that_cannot_be_run(command):
    with pytest.raises(PatchsetError, match="cannot run"):
        processes.run([command])


def test_directory_that_does_not_exist(tmp_path):
    with pytest.raises(PatchsetError, match=r"cannot run true in .*missing.*No such file"):
        processes.run(["true"], cwd=tmp_path / "missing")


def test_pid_is_the_commands_own(tmp_path):
    with processes.Guarded.start(["sleep", "600"]) as process:
        eventually(lambda: psutil.Process(process.pid).name() == "sleep", "sleep is running")
        assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == -signal.SIGUSR1


def test_timeout_ends_everything(tree):
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(tree.command(), timeout=1.5)
    assert 1.5 <= time.monotonic() - started < 6
    assert not tree.alive()


def test_nothing_is_left_when_the_command_ends(tree):
    assert processes.run(tree.command("end")).returncode == 7
    assert tree.alive() == []


def test_nothing_is_left_when_the_command_is_killed(tree):
    with processes.Guarded.start(tree.command()) as process:
        tree.wait_until_ready()
        assert len(tree.alive()) == 4
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert tree.alive() == []


def test_stop_leaves_nothing(tree):
    process = processes.Guarded.start(tree.command())
    tree.wait_until_ready()
    assert process.stop() == -signal.SIGTERM
    assert tree.alive() == []
    assert process.stop() == -signal.SIGTERM, "a second stop changes nothing"


def test_stop_lets_the_command_end_its_own_way(tmp_path):
    code = "trap 'echo ended >&2; exit 3' TERM; echo >&2; while :; do sleep 0.05; done"
    log = tmp_path / "log"
    process = processes.Guarded.start(["sh", "-c", code], log=log)
    eventually(lambda: log.read_text(), "the trap is set")
    assert process.stop() == 3
    assert "ended" in log.read_text()


def test_stop_kills_what_ignores_sigterm_after_the_grace(tree):
    process = processes.Guarded.start(tree.command("deaf"))
    tree.wait_until_ready(".really")
    started = time.monotonic()
    assert process.stop(grace=0.5) == -signal.SIGKILL
    assert 0.5 <= time.monotonic() - started < 5
    assert tree.alive() == []


def test_nothing_is_left_when_the_block_raises(tree):
    with pytest.raises(ZeroDivisionError):
        with processes.Guarded.start(tree.command()):
            tree.wait_until_ready()
            raise ZeroDivisionError
    assert tree.alive() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_when_the_tool_is_ended(tree, tool, number):
    process = tool()
    tree.wait_until_ready()
    assert len(tree.alive()) == 5, "the tool and the tree of four"
    process.send_signal(number)
    assert process.wait() == -number
    eventually(lambda: not tree.alive(), "all processes of the tree ended")


def test_nothing_is_left_when_the_tool_is_killed_and_the_command_ignores_sigterm(tree, tool):
    process = tool("deaf", call="Guarded.start(sys.argv[1:], grace=0.5).wait()")
    tree.wait_until_ready(".really")
    process.kill()
    eventually(lambda: not tree.alive(), "all processes of the tree ended")


def test_nothing_is_left_when_the_tool_is_killed_while_it_starts_commands(tree, tool):
    # Wherever in the start of a command the kill falls, the tree must be gone soon after.
    for delay in (0, 0.01, 0.02, 0.04, 0.08):
        process = tool()
        time.sleep(0.25 + delay)
        process.kill()
        process.wait()
        eventually(lambda: not tree.alive() and not _guards_of(tree), "tree and guard ended")
        tree.ready.unlink(missing_ok=True)


def test_nothing_is_left_when_the_whole_group_of_the_tool_is_killed(tree, tool):
    process = tool(
        call="Guarded.start(sys.argv[1:], stdin=None, foreground=True).wait()", start_new_session=True
    )
    tree.wait_until_ready()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    eventually(lambda: not tree.alive() and not _guards_of(tree), "tree and guard ended")


def _guards_of(tree):
    return [p.pid for p in psutil.process_iter(["cmdline"]) if tree.marker in (p.info["cmdline"] or [])]


def test_two_commands_do_not_hold_each_other(tree):
    # The second guard must not inherit the first one's pipe, or the first would outlive a killed tool.
    with processes.Guarded.start(["sleep", "600"]) as first, processes.Guarded.start(["sleep", "600"]):
        started = time.monotonic()
        assert first.stop() == -signal.SIGTERM
        assert time.monotonic() - started < 3


def test_guard_uses_no_cpu_while_it_waits():
    with processes.Guarded.start(["sleep", "600"]) as process:
        guard = psutil.Process(process.pid).parent()

        def idle_for_a_second():
            before = guard.cpu_times(), guard.num_ctx_switches()
            time.sleep(1)
            return (guard.cpu_times(), guard.num_ctx_switches()) == before

        eventually(idle_for_a_second, "a second in which the guard does nothing at all")


def test_held_lock_is_released_only_when_nothing_runs_any_more(tree, tmp_path):
    """A tool that was killed must not let the next one in while its commands still write."""
    lock = tmp_path / "lock"
    code = f"""
import fcntl, sys; sys.path.insert(0, {str(SCRIPTS)!r})
from patchsetlib.shell import processes
file = open({str(lock)!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
processes.run(sys.argv[1:], hold=[file.fileno()])
"""
    process = subprocess.Popen([sys.executable, "-c", code, *tree.command()])
    tree.wait_until_ready()
    process.kill()
    process.wait()
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert tree.alive() == []


def test_foreground_command_gets_ctrl_c_and_the_rest_of_it_is_cleaned_up(tree):
    """In a terminal: Ctrl-C reaches the command, which decides; a daemon it leaves is ended all the same."""
    code = f"""
import sys, signal; sys.path.insert(0, {str(SCRIPTS)!r})
from patchsetlib.shell import processes
signal.signal(signal.SIGINT, lambda *args: None)
with processes.Guarded.start(sys.argv[1:], stdin=None, foreground=True) as process:
    print("exit code", process.wait())
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code, *tree.command()])
    tree.wait_until_ready()
    assert len(tree.alive()) >= 4
    os.write(terminal, b"\x03")
    output = b""
    while b"exit code" not in output:
        output += os.read(terminal, 4096)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert tree.alive() == []
    os.close(terminal)
    assert b"KeyboardInterrupt" in output
