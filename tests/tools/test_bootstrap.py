# SPDX-License-Identifier: Apache-2.0
"""The entry point on a machine with only Python and git; a small wheel stands for the libraries."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
# In place of the tools: says how it was started.
STUB = """\
import json, os, signal, sys, tiny
waiting = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
print(json.dumps([sys.argv[1:], sys.path, sys.flags.isolated, list(os.environ), waiting]))
"""


def make_wheel(directory: Path) -> str:
    """Write a wheel of one module and return its SHA-256."""
    directory.mkdir()
    path = directory / "tiny-1.0-py3-none-any.whl"
    contents = {
        "tiny.py": "",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},\n"
        for name, text in contents.items()
    )
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**contents, "tiny-1.0.dist-info/RECORD": record}.items():
            wheel.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Machine:
    def __init__(self, top: Path):
        self.root = top / "patch set"
        (self.root / "scripts" / "patchsetlib").mkdir(parents=True)
        shutil.copy(SCRIPTS / "patchset", self.root / "scripts")
        (self.root / "scripts" / "patchsetlib" / "__main__.py").write_text(STUB)
        self.require(make_wheel(top / "wheels"))
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PATCHSET_", "PYTHON"))}
        self.env |= {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(top / "wheels"),
            "PIP_CONFIG_FILE": os.devnull,
        }

    def require(self, sha256: str) -> None:
        path = self.root / "scripts" / "requirements.txt"
        path.write_text(f"tiny==1.0 --hash=sha256:{sha256}\n")

    @property
    def script(self) -> Path:
        return self.root / "scripts" / "patchset"

    @property
    def environments(self) -> list[Path]:
        return [path for path in (self.root / "work").glob("tools-*") if path.is_dir()]

    def start(self, *args: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, self.script, *args],
            env=self.env | (env or {}),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        process = self.start(*args, env=env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def fails(self, env: dict[str, str] | None = None) -> str:
        """Run the tool, which must fail with one line and leave no environment."""
        code, out, err = self.run("--quiet", "status", env=env)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith("patchset: ")
        assert self.environments == []
        return line

    def processes(self) -> list[psutil.Process]:
        """Return the processes that work on this machine's environment."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.root) in argument for argument in process.info["cmdline"] or ()):
                found.append(process)
        return found


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_installs_once_then_runs(machine, tmp_path):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "json.py").write_text("raise SystemExit('the trap')")
    (trap / "tiny.py").write_text("raise SystemExit('the trap')")
    (machine.root / "tiny.py").write_text("raise SystemExit('the trap')")
    code, out, err = machine.run("status", "a b", "--", "--quiet")
    assert code == 0, err
    first, last = err.splitlines()
    assert first.startswith("installing the tools into ")
    assert last.startswith("installing the tools: done in ")
    arguments, path, isolated, _, waiting = json.loads(out)
    assert arguments == ["status", "a b", "--", "--quiet"]
    assert isolated
    assert sorted(waiting) == [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]
    assert not {str(machine.root), "", str(trap)} & set(path)
    (installed,) = machine.environments
    code, out, err = machine.run("status", env={"PYTHONPATH": str(trap)})
    assert (code, err) == (0, "")
    assert "PYTHONPATH" not in json.loads(out)[3]
    # The Python it was made with may go, e.g. in an upgrade of the system.
    (installed / "bin" / "python").unlink()
    code, _, err = machine.run()
    assert code == 0
    assert "installing the tools" in err
    # Another set of libraries is another environment; the old one serves other branches.
    requirements = machine.root / "scripts" / "requirements.txt"
    requirements.write_text("# changed\n" + requirements.read_text())
    assert machine.run("--quiet")[0] == 0
    assert len(machine.environments) == 2
    assert installed in machine.environments


def test_as_users_have_it(machine, tmp_path):
    """Called through a link, with work/ elsewhere, and a pip that is set up for other purposes."""
    link, work, elsewhere = tmp_path / "patchset", tmp_path / "other work", tmp_path / "elsewhere"
    link.symlink_to(machine.script)
    settings = tmp_path / "pip.conf"
    settings.write_text("[install]\nuser = true\n")
    env = {"PATCHSET_WORK": str(work), "PIP_TARGET": str(elsewhere), "PIP_CONFIG_FILE": str(settings)}
    done = subprocess.run([sys.executable, link], env=machine.env | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert machine.environments == []
    assert len(list(work.glob("tools-*/complete"))) == 1
    assert not elsewhere.exists()


def test_two_at_once(machine):
    both = [machine.start("status"), machine.start("status")]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(machine.environments) == 1
    assert sum("installing the tools: done" in err for _, err in said) == 1


def test_wrong_hash(machine):
    machine.require("0" * 64)
    assert machine.fails() == (
        "patchset: a downloaded file does not have the expected hash; check which package index pip uses"
    )


def test_no_network(machine):
    env = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
    }
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        machine.env.pop(name, None)
    assert "patchset: no network: the package index cannot be reached; connect" in machine.fails(env)


def test_library_missing_from_the_index(machine, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the package index lacks a library" in machine.fails({"PIP_FIND_LINKS": str(tmp_path / "empty")})


def test_unwritable_place(machine, tmp_path):
    (tmp_path / "file").write_text("")
    line = machine.fails({"PATCHSET_WORK": str(tmp_path / "file" / "work")})
    assert "cannot write to" in line
    assert "set PATCHSET_WORK to a directory you can write to" in line


def test_no_git(machine, tmp_path):
    assert (
        machine.fails({"PATH": str(tmp_path)}) == "patchset: git not found; install it, e.g. apt install git"
    )


def test_python_without_ensurepip(machine, tmp_path):
    """As on Debian without python3-venv."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    assert "apt install python3-venv" in machine.fails({"PYTHONPATH": str(tmp_path)})


def test_old_python_can_read_it(machine):
    ast.parse(machine.script.read_text(encoding="utf-8"), feature_version=(3, 4))


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9"])
def test_old_python(machine, version):
    candidates = [
        shutil.which(f"python{version}"),
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"),
    ]
    # A name may be a version manager's, for a version that is not installed.
    python = next((path for path in candidates if path and not subprocess.call([path, "-c", ""])), None)
    if python is None:
        pytest.skip(f"no Python {version} here")
    done = subprocess.run([python, machine.script], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"needs Python 3.10 or newer, this is {version}" in line
    assert not (machine.root / "work").exists()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


STAGES = {
    "while making it": lambda machine: machine.environments,
    "while installing": lambda machine: any(
        "install" in process.cmdline() for process in machine.processes()
    ),
}


def reached(stage: str, machine: Machine) -> bool:
    try:
        return bool(STAGES[stage](machine))
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_stopped(machine, stage, number):
    process = machine.start("status")
    wait_for(lambda: reached(stage, machine))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "patchset: stopped"
    assert machine.environments == []
    assert machine.processes() == []


@pytest.mark.parametrize("stage", STAGES)
def test_killed(machine, stage):
    process = machine.start("status")
    wait_for(lambda: reached(stage, machine))
    process.kill()
    process.communicate(timeout=30)
    code, _, err = machine.run("status")
    assert code == 0, err
    (installed,) = machine.environments
    assert (installed / "complete").exists()
    wait_for(lambda: machine.processes() == [])


def test_no_space_left(machine):
    """What pip says is turned into what the user can do; a full disk cannot be made here."""
    code = (
        "import importlib.machinery as m, importlib.util as u; "
        f"s = u.spec_from_loader('p', m.SourceFileLoader('p', {str(machine.script)!r})); "
        "p = u.module_from_spec(s); s.loader.exec_module(p); "
        "print(p.cause(['Collecting x', 'ERROR: Could not install: [Errno 28] No space left on device']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "no space left for the tools; free some, or set PATCHSET_WORK to another place\n"
