# SPDX-License-Identifier: Apache-2.0
"""The entry point on a machine with only Python and git; a small wheel stands for the libraries."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import sampleindex

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PATIENCE = 300
# In place of the tools: says how it was started.
STUB = """\
import json, os, sys, tiny
print(json.dumps([sys.argv[1:], sys.path, list(os.environ)]))
"""


class Machine:
    def __init__(self, top: Path):
        self.root = top / "patch set"
        self.script = self.root / "scripts" / "patchset"
        (self.root / "scripts" / "patchsetlib").mkdir(parents=True)
        (self.root / "scripts" / "requirements").mkdir()
        shutil.copy(SCRIPTS / "patchset", self.script)
        (self.root / "scripts" / "patchsetlib" / "__main__.py").write_text(STUB)
        (top / "wheels").mkdir()
        wheel = sampleindex.wheel({"tiny.py": ""})
        (top / "wheels" / sampleindex.WHEEL).write_bytes(wheel)
        self.sha256 = hashlib.sha256(wheel).hexdigest()
        for name in ("tools", "measure", "tests"):
            self.require(name, self.sha256)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PATCHSET_", "PYTHON"))}
        self.env |= {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(top / "wheels"),
            "PIP_CONFIG_FILE": os.devnull,
        }

    def require(self, name: str, sha256: str) -> None:
        path = self.root / "scripts" / "requirements" / f"{name}.txt"
        path.write_text(f"# {name}\n{sampleindex.PROJECT}==1.0 --hash=sha256:{sha256}\n")

    def environments(self, work: Path | None = None) -> list[str]:
        """Return the names of the environments, half-made ones included."""
        found = work or self.root / "work"
        return sorted(path.name for path in found.glob("*")) if found.exists() else []

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
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def fails(self, env: dict[str, str] | None = None) -> str:
        """Run the tool, which must fail, leave no environment and say why; return that."""
        code, out, err = self.run("--quiet", "status", env=env)
        assert (code, out) == (1, "")
        assert err.splitlines()[-1].startswith("patchset: ")
        assert "Traceback" not in err
        assert self.environments() == []
        return err


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_installs_once_then_runs(machine, tmp_path):
    """Called through a link, with work/ elsewhere, and a pip that installs for the user."""
    link, work, settings = tmp_path / "patchset", tmp_path / "other work", tmp_path / "pip.conf"
    link.symlink_to(machine.script)
    settings.write_text("[install]\nuser = true\n")
    machine.script = link
    machine.env |= {"PATCHSET_WORK": str(work), "PIP_CONFIG_FILE": str(settings)}
    trap = tmp_path / "trap"
    trap.mkdir()
    for directory in (trap, machine.root):
        (directory / "tiny.py").write_text("raise SystemExit('the trap')")
    code, out, err = machine.run("status", "a b", "--", "--quiet")
    assert code == 0, err
    assert err.startswith("installing the libraries of the tools into ")
    assert len(err.splitlines()) == 1
    arguments, path, _ = json.loads(out)
    assert arguments == ["status", "a b", "--", "--quiet"]
    assert not {str(machine.root), ""} & set(path)
    code, out, err = machine.run("status", env={"PYTHONPATH": str(trap), "PYTHONHOME": "", "PYTHONX": "kept"})
    assert (code, err) == (0, "")
    assert {name for name in json.loads(out)[2] if name.startswith("PYTHON")} == {"PYTHONX"}
    assert machine.environments() == []
    assert len(machine.environments(work)) == 1


@pytest.mark.nightly
def test_environment_whose_python_has_gone(machine):
    """As by an upgrade of the system."""
    machine.run("status")
    (installed,) = machine.environments()
    (machine.root / "work" / installed / "bin" / "python").unlink()
    assert "installing" in machine.run("status")[2]
    assert machine.environments() == [installed]


def test_a_verb_gets_what_it_needs_and_takes_more(machine):
    assert "measure-" in machine.run("demo")[2]
    assert machine.run("status")[::2] == (0, "")
    # Other libraries are another environment; the old one serves other branches.
    machine.require("measure", f"{machine.sha256} ")
    assert machine.run("--quiet", "demo")[::2] == (0, "")
    assert [name.partition("-")[0] for name in machine.environments()] == ["measure", "measure"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs a library to read TOML")
def test_doctor_needs_psutil_alone(machine, tmp_path):
    (machine.root / "scripts" / "patchsetlib" / "__main__.py").write_text("import psutil; print('seen')")
    assert machine.run("doctor") == (0, "seen\n", "")
    assert machine.environments() == []
    venv.create(tmp_path / "bare", symlinks=True)
    command = [tmp_path / "bare" / "bin" / "python", machine.script, "doctor"]
    done = subprocess.run(command, env=machine.env, capture_output=True, text=True)
    assert done.stderr.startswith("installing the libraries of the tools into ")
    assert len(machine.environments()) == 1


@pytest.mark.nightly
def test_two_at_once(machine):
    both = [machine.start("status"), machine.start("status")]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(machine.environments()) == 1


@pytest.mark.nightly
def test_wrong_hash(machine):
    machine.require("tools", "0" * 64)
    assert "HASHES" in machine.fails()


def test_unwritable_place(machine, tmp_path):
    (tmp_path / "file").write_text("")
    line = machine.fails({"PATCHSET_WORK": str(tmp_path / "file" / "work")})
    assert "cannot write to" in line
    assert "set PATCHSET_WORK to another directory" in line


def test_no_git(machine, tmp_path):
    said = machine.fails({"PATH": str(tmp_path)})
    assert said == "patchset: git not found; install it, e.g. apt install git\n"


def test_python_without_ensurepip(machine, tmp_path):
    """As on Debian without python3-venv."""
    machine.script.write_text(
        machine.script.read_text().replace("import sys\n", "import sys\nsys.modules['ensurepip'] = None\n", 1)
    )
    assert "apt install python3-venv" in machine.fails()


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
    assert machine.environments() == []


@pytest.fixture
def silent_index():
    """An index that takes connections and does not answer; and the variables by which pip uses it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        yield (
            server,
            {
                "PIP_INDEX_URL": url,
                "PIP_NO_INDEX": "",
                "PIP_FIND_LINKS": "",
                "NO_PROXY": "*",
                "PIP_RETRIES": "0",
            },
        )


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGTERM])
def test_stopped_while_it_installs(machine, silent_index, number):
    server, variables = silent_index
    process = machine.start("status", env=variables)
    connection, _ = server.accept()
    process.send_signal(number)
    # Only when pip has ended as well do these streams and the connection end.
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert machine.environments() == []
    connection.settimeout(PATIENCE)
    while connection.recv(4096):
        pass


@pytest.mark.nightly
def test_killed_while_it_installs(machine, silent_index):
    server, variables = silent_index
    process = machine.start("status", env=variables)
    connection, _ = server.accept()
    process.kill()
    process.wait()
    code, _, err = machine.run("status")
    assert code == 0, err
    # Lets pip, which goes on alone, end.
    connection.close()
    server.close()
    process.communicate(timeout=PATIENCE)


def tools(redirection: str, *args: str) -> tuple[int, str]:
    """Run the tools with a stream redirected by a shell; return exit code and stderr."""
    command = [sys.executable, "-I", SCRIPTS / "patchsetlib", *args]
    shell = ["sh", "-c", f'"$@" {redirection}', "sh", *command]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        (">/dev/full", 1, "patchset: No space left on device\n"),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_output_that_goes_nowhere(redirection, code, said):
    assert tools(redirection, "--quiet", "status") == (code, said)


def test_error_that_cannot_be_said():
    assert tools("2>/dev/full", "no-such-verb") == (2, "")


def test_output_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-I", SCRIPTS / "patchsetlib", "status"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
