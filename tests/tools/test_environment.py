# SPDX-License-Identifier: Apache-2.0
"""Environments, built for real: of a small project on an index of our own, and of Airflow itself."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import pty
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest
import sampleindex

from patchsetlib.installs import environment, overlay
from patchsetlib.shell.errors import PatchsetError

MODULE = "".join(f"def step_{n}():\n    return {n}\n\n\n" for n in range(20))
WHEEL = sampleindex.wheel(
    {
        "airflow/first.py": MODULE,
        "airflow/second.py": MODULE,
        "airflow/ui/dist/index.html": "compiled",
    }
)
FIRST = "airflow-core/src/airflow/first.py"
SECOND = "airflow-core/src/airflow/second.py"
REPOSITORY = Path(__file__).resolve().parents[2]
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


class Sample:
    """A patch set for the small project: the tools, a base 1.0 with an empty series, and an index."""

    def __init__(self, repository, index):
        self.repository = repository
        self.index = index
        self.place = repository.root / "work" / "1.0" / f"python-{MINOR}"
        sha256 = hashlib.sha256(WHEEL).hexdigest()
        toml = repository.base / "base.toml"
        head, _, tail = toml.read_text().partition("[wheel]\n")
        wheel = tail.rpartition('sha256 = "')[0] + f'sha256 = "{sha256}"\n'
        toml.write_text(head + "[wheel]\n" + wheel)
        self.pin(sha256)
        env = repository.env
        for name in [name for name in env if name.startswith("UV_") or name == "AIRFLOW_HOME"]:
            del env[name]
        env["UV_DEFAULT_INDEX"] = index.url
        env["UV_CACHE_DIR"] = str(repository.root.parent / "uv cache")
        env["NO_PROXY"] = "127.0.0.1"

    def pin(self, sha256: str, comment: str = "") -> None:
        text = f"{comment}\ndemo-core==1.0 --hash=sha256:{sha256}\n"
        (self.repository.base / "constraints.txt").write_text(text)

    def python(self, *args: str, **options) -> Path:
        """Run the verb ``python`` and return the path on the last line of its stdout."""
        return Path(self.repository.ok("python", "1.0", *args, **options).splitlines()[-1])

    def change(self, files: dict[str, str | None], subject: str = "Take a step right") -> None:
        """Add a patch to the series."""
        tree = self.repository.root.parent / "tree"
        self.repository.ok("checkout", "1.0", "--dir", tree)
        for name, text in files.items():
            if text is None:
                (tree / name).unlink()
        self.repository.commit(tree, subject, {k: v for k, v in files.items() if v is not None})
        self.repository.ok("export", "1.0", "--dir", tree)
        shutil.rmtree(tree)

    def partial(self) -> list[Path]:
        """Return what an unfinished build left behind."""
        return [path for path in self.place.glob("*/*") if not (path.parent / ".patchset.json").exists()]


@pytest.fixture
def sample(empty):
    index = sampleindex.Index({sampleindex.WHEEL: WHEEL})
    yield Sample(empty, index)
    index.close()


def step(python: Path, module: str = "first", number: int = 3) -> str:
    code = f"import airflow.{module} as module; print(module.step_{number}())"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def site_packages(python: Path) -> Path:
    (path,) = python.parent.parent.glob("lib/python*/site-packages")
    return path


def test_stock(sample):
    python = sample.python("--stock")
    assert python == sample.place / "stock" / "bin" / "python"
    assert step(python) == "3"
    # The path of this repository has a space in it, which a "#!" line cannot hold.
    assert subprocess.run([python.parent / "demo"], check=False).returncode == 3
    assert list(site_packages(python).glob("airflow/__pycache__/first.*.pyc"))


def test_nothing_is_done_when_nothing_changed(sample):
    python = sample.python("--stock")
    sample.index.close()
    shutil.rmtree(sample.repository.env["UV_CACHE_DIR"])
    before = {path: path.stat().st_mtime_ns for path in (sample.place / "stock").rglob("*")}
    done = sample.repository.run("python", "1.0", "--stock")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{python}\n", "")
    after = {path: path.stat().st_mtime_ns for path in (sample.place / "stock").rglob("*")}
    assert after == before


def test_patched_beside_stock(sample):
    sample.change(
        {
            FIRST: MODULE.replace("return 3\n", "return 33\n"),
            SECOND: None,
            "airflow-core/src/airflow/new/third.py": "def step_3():\n    return 333\n",
            "airflow-core/tests/unit/test_first.py": "def test_first():\n    pass\n",
        }
    )
    stock, patched = sample.python("--stock"), sample.python()
    assert patched == sample.place / "patched" / "bin" / "python"
    assert step(patched) == "33"
    assert subprocess.run([patched.parent / "demo"], check=False).returncode == 33
    assert step(patched, "new.third") == "333"
    files = {str(path.relative_to(site_packages(patched))) for path in site_packages(patched).rglob("*.*")}
    assert {"airflow/first.py", "airflow/new/third.py", "airflow/ui/dist/index.html"} <= files
    assert "airflow/second.py" not in files
    assert not any("test_first" in name for name in files)
    assert environment.damaged_files(site_packages(patched), "demo-core") == []
    # uv links files from its cache; an edit in place would have reached it and stock through that.
    assert step(stock) == "3"
    assert step(stock, "second") == "3"
    assert environment.damaged_files(site_packages(stock), "demo-core") == []


def test_only_the_wheel_is_installed_again_when_the_series_changes(sample):
    sample.change({FIRST: MODULE.replace("return 3\n", "return 4\n")})
    python = sample.python()
    added = site_packages(python) / "added_by_the_user.py"
    added.touch()
    # The same size, so that bytecode of before would seem to be up to date.
    sample.change({FIRST: MODULE.replace("return 3\n", "return 5\n")}, "Take it elsewhere")
    assert sample.python() == python
    assert step(python) == "5"
    assert added.exists()
    assert environment.damaged_files(site_packages(python), "demo-core") == []


def test_nothing_is_installed_when_only_words_of_the_series_change(sample):
    sample.change({FIRST: MODULE.replace("return 3\n", "return 4\n")})
    python = sample.python()
    before = (site_packages(python) / "airflow" / "first.py").stat()
    (patch,) = sample.repository.patches
    patch.write_text(patch.read_text().replace("the smallest way", "the shortest way"))
    assert sample.python() == python
    assert (site_packages(python) / "airflow" / "first.py").stat().st_ino == before.st_ino


def test_everything_is_installed_again_when_a_pin_changes(sample):
    python = sample.python("--stock")
    added = site_packages(python) / "added_by_the_user.py"
    added.touch()
    sample.pin(hashlib.sha256(WHEEL).hexdigest(), "# changed")
    assert sample.python("--stock") == python
    assert not added.exists()


def test_a_moved_repository_builds_its_environments_anew(sample):
    sample.python("--stock")
    sample.repository.root.rename(sample.repository.root.with_name("moved"))
    sample.repository.root = sample.repository.root.with_name("moved")
    python = sample.python("--stock")
    assert python.is_relative_to(sample.repository.root)
    assert subprocess.run([python.parent / "demo"], check=False).returncode == 3


def test_an_environment_whose_python_is_gone_is_built_anew(sample):
    python = sample.python("--stock")
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert step(sample.python("--stock")) == "3"


def test_changes_that_a_wheel_cannot_show_are_named(sample):
    sample.change(
        {
            "airflow-core/pyproject.toml": "[project]\nname = 'demo-core'\ndependencies = ['x']\n",
            "airflow-core/src/airflow/ui/src/main.tsx": "export {}\n",
        }
    )
    said = sample.repository.run("python", "1.0").stderr
    assert "warning: airflow-core/pyproject.toml: changed by the series" in said
    assert "warning: airflow-core/src/airflow/ui/src/main.tsx: changed by the series" in said


def test_series_that_does_not_apply(sample):
    sample.change({FIRST: MODULE.replace("return 3\n", "return 33\n")})
    (patch,) = sample.repository.patches
    patch.write_text(patch.read_text().replace("-    return 3\n", "-    return 99\n"))
    assert "does not apply" in sample.repository.fails("python", "1.0")
    assert sample.partial() == []


def test_failed_update_leaves_nothing_half_done(sample):
    """The environment of before stays as it was, and the next run works."""
    sample.change({FIRST: MODULE.replace("return 3\n", "return 4\n")})
    python = sample.python()
    (patch,) = sample.repository.patches
    good = patch.read_text()
    patch.write_text(good.replace("-    return 3\n", "-    return 99\n"))
    assert "does not apply" in sample.repository.fails("python", "1.0")
    assert step(python) == "4"
    patch.write_text(good)
    assert sample.python() == python
    assert step(python) == "4"


def test_other_file_on_the_index_than_pinned(sample):
    sample.pin("0" * 64)
    line = sample.repository.fails("python", "1.0", "--stock")
    assert "hash mismatch for demo-core==1.0" in line
    assert hashlib.sha256(WHEEL).hexdigest() in line
    assert sample.partial() == []


def test_no_network(sample):
    sample.index.close()
    sample.repository.env["UV_HTTP_RETRIES"] = "0"
    assert "cannot reach the package index at 127.0.0.1" in sample.repository.fails(
        "python", "1.0", "--stock"
    )
    assert sample.partial() == []


def test_work_directory_that_cannot_be_written(sample):
    sample.repository.env["PATCHSET_WORK"] = "/proc/nowhere"
    assert "cannot write to /proc/nowhere" in sample.repository.fails("python", "1.0", "--stock")


def test_missing_pins(sample):
    (sample.repository.base / "constraints.txt").unlink()
    line = sample.repository.fails("python", "1.0", "--stock")
    assert "constraints.txt" in line
    assert "No such file" in line


@pytest.mark.parametrize(
    ("wanted", "part", "code"),
    [
        ("3.9", "Airflow 1.0 does not run on Python 3.9; choose one of >=3.10", 2),
        ("3.98", "this machine has no Python 3.98", 1),
        ("banana", "no such Python: banana", 2),
        ("/bin/sh", "/bin/sh is not a Python interpreter that works", 2),
    ],
)
def test_wrong_python(sample, wanted, part, code):
    assert part in sample.repository.fails("python", "1.0", "--python", wanted, code=code)
    sample.repository.env["PATCHSET_PYTHON"] = wanted
    assert part in sample.repository.fails("python", "1.0", code=code)
    assert not sample.place.exists()


def test_no_python_in_the_range(sample):
    toml = sample.repository.base / "base.toml"
    toml.write_text(toml.read_text().replace('">=3.10"', '">=3.98,<4"'))
    line = sample.repository.fails("python", "1.0")
    assert "this machine has no Python >=3.98,<4, which Airflow 1.0 needs" in line
    assert "PATCHSET_PYTHON" in line


def test_python_by_version_path_and_variable(sample):
    own = ".".join(map(str, sys.version_info[:3]))
    by_version = sample.python("--stock", "--python", own)
    assert sample.python("--stock", "--python", MINOR) == by_version
    sample.repository.env["PATCHSET_PYTHON"] = sys.executable
    assert sample.python("--stock") == by_version


class Slow:
    """A build that has come as far as a download that does not end."""

    def __init__(self, sample: Sample):
        self.sample = sample
        self.sample.repository.ok("--help")
        sample.index.gate.clear()
        self.process = self.start()
        assert sample.index.asked.wait(30)

    def start(self) -> subprocess.Popen:
        repository = self.sample.repository
        command = repository.command("python", "1.0", "--stock")
        return subprocess.Popen(
            command, cwd=repository.root, env=repository.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        place = str(self.sample.place)
        return [p for p in psutil.process_iter(["cmdline"]) if place in " ".join(p.info["cmdline"] or [])]


@pytest.fixture
def slow(sample):
    slow = Slow(sample)
    yield slow
    sample.index.gate.set()
    if slow.process.poll() is None:
        slow.process.kill()
    slow.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_build_leaves_nothing(slow, number):
    assert slow.processes()
    slow.process.send_signal(number)
    output = slow.process.communicate(timeout=30)
    assert slow.process.returncode == 128 + number
    assert "Traceback" not in output[1]
    assert slow.processes() == []
    assert slow.sample.partial() == []
    slow.sample.index.gate.set()
    assert step(slow.sample.python("--stock")) == "3"


def test_killed_build_is_cleaned_up_by_the_next_run(slow):
    slow.process.kill()
    slow.process.wait()
    assert slow.sample.partial() != []
    slow.sample.index.gate.set()
    # At once: this run must wait until what the killed one started has ended.
    python = slow.sample.python("--stock")
    assert step(python) == "3"
    assert environment.damaged_files(site_packages(python), "demo-core") == []


def test_second_build_says_that_it_waits_and_uses_the_first(slow):
    second = slow.start()
    said = ""
    while "waiting for another run" not in said:
        line = second.stderr.readline()
        assert line, f"ended without waiting: {said}"
        said += line
    slow.sample.index.gate.set()
    first_output, second_output = slow.process.communicate(timeout=60), second.communicate(timeout=60)
    assert (slow.process.returncode, second.returncode) == (0, 0)
    assert second_output[0] == first_output[0]
    assert "installing" not in second_output[1]


def test_run_passes_everything_through(sample):
    run = ("run", "1.0", "--stock", "--")
    code = "import sys; print(sys.stdin.read() + ' '.join(sys.argv[1:])); sys.exit(5)"
    done = sample.repository.run(
        *run, "python", "-c", code, "--", "--stock", "a b", stdin=None, input="text "
    )
    assert (done.returncode, done.stdout) == (5, "text -- --stock a b\n")
    home = sample.repository.root / "work" / "1.0" / "home-stock"
    assert f"AIRFLOW_HOME={home}" in done.stderr
    assert sample.repository.run(*run, "demo").returncode == 3
    assert sample.repository.ok(*run, "sh", "-c", "echo $VIRTUAL_ENV $AIRFLOW_HOME") == (
        f"{sample.place / 'stock'} {home}\n"
    )
    sample.repository.env["AIRFLOW_HOME"] = "/elsewhere"
    assert sample.repository.ok(*run, "sh", "-c", "echo $AIRFLOW_HOME") == "/elsewhere\n"
    assert sample.repository.run(*run, "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL
    assert "cannot run no-such-command" in sample.repository.fails(*run, "no-such-command")
    assert "arguments are required" in sample.repository.fails("run", "1.0", "--stock", code=2)


def test_run_hands_an_interrupt_on_where_there_is_no_terminal(sample):
    sample.python("--stock")
    script = "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.05; done"
    command = sample.repository.command("run", "1.0", "--stock", "--", "sh", "-c", script)
    options = {"cwd": sample.repository.root, "env": sample.repository.env, "stdin": subprocess.DEVNULL}
    # A session of its own, so without the terminal of whoever runs these tests.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, **options)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert process.returncode == 6


def test_run_in_a_terminal(sample):
    """The command has the terminal, Ctrl-C included, and what it leaves behind is ended."""
    sample.python("--stock")
    marker = str(sample.repository.root / "marker")
    script = (
        f"setsid python -c 'import time; time.sleep(600)' '{marker}' & "
        "trap 'echo interrupted; exit 6' INT; test -t 0 && read word </dev/tty && echo \"got $word\"; "
        "while :; do sleep 0.05; done"
    )
    command = sample.repository.command("run", "1.0", "--stock", "--", "sh", "-c", script)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(sample.repository.root)
        os.execve(command[0], command, sample.repository.env)
    output = _converse(terminal, [("home-stock", b"word\n"), ("got word", b"\x03"), ("interrupted", b"")])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6, output
    os.close(terminal)
    assert not [p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


def _converse(terminal: int, exchanges: list[tuple[str, bytes]]) -> str:
    output = ""
    for expected, answer in exchanges:
        while expected not in output:
            try:
                output += os.read(terminal, 4096).decode()
            except OSError:
                pytest.fail(f"ended before it said {expected!r}: {output}")
        os.write(terminal, answer)
    return output


def _rewritten(tmp_path: Path, changed: dict[str, bytes | None]) -> zipfile.ZipFile:
    stock = tmp_path / sampleindex.WHEEL
    stock.write_bytes(WHEEL)
    buffer = io.BytesIO()
    overlay.write(stock, changed, buffer)
    again = io.BytesIO()
    overlay.write(stock, changed, again)
    assert again.getvalue() == buffer.getvalue()
    return zipfile.ZipFile(buffer)


def test_patched_wheel_is_a_valid_one(tmp_path):
    wheel = _rewritten(
        tmp_path, {"airflow/first.py": b"1\n", "airflow/second.py": None, 'airflow/o"dd, é.py': b"2\n"}
    )
    names = wheel.namelist()
    assert sorted(names) == sorted(set(names))
    assert "airflow/second.py" not in names
    assert names[-1] == "demo_core-1.0.dist-info/RECORD"
    rows = list(csv.reader(io.StringIO(wheel.read(names[-1]).decode())))
    assert [row[0] for row in rows] == names
    assert rows[-1][1:] == ["", ""]
    for name, digest, size in rows[:-1]:
        assert digest == overlay._hash(wheel.read(name))
        assert int(size) == len(wheel.read(name))


def test_wheel_with_nothing_changed_has_the_same_files(tmp_path):
    wheel, stock = _rewritten(tmp_path, {}), zipfile.ZipFile(io.BytesIO(WHEEL))
    assert wheel.namelist() == stock.namelist()
    assert all(wheel.read(name) == stock.read(name) for name in wheel.namelist())


def test_wheel_that_lacks_a_file_to_remove(tmp_path):
    with pytest.raises(PatchsetError, match=r"no airflow/missing\.py"):
        _rewritten(tmp_path, {"airflow/missing.py": None})


def test_damaged_and_missing_files_are_found(sample):
    python = sample.python("--stock")
    (site_packages(python) / "airflow" / "second.py").unlink()
    first = site_packages(python) / "airflow" / "first.py"
    first.unlink()
    first.write_text("edited")
    damaged = environment.damaged_files(site_packages(python), "demo-core")
    assert sorted(damaged) == ["airflow/first.py", "airflow/second.py"]


@pytest.fixture
def airflow(empty):
    """A copy of the base 3.1.3 with an empty series, and uv's real index and cache."""
    base = empty.root / "airflow-core" / "3.1.3"
    shutil.copytree(REPOSITORY / "airflow-core" / "3.1.3", base, ignore=shutil.ignore_patterns("*.patch"))
    (base / "series").write_text("")
    empty.env = {k: v for k, v in os.environ.items() if not k.startswith(("PATCHSET_", "AIRFLOW"))}
    return empty


@pytest.mark.network
def test_airflow_stock_and_patched(airflow):
    executor = "airflow-core/src/airflow/executors/local_executor.py"
    tree = airflow.root.parent / "tree"
    airflow.ok("checkout", "3.1.3", "--dir", tree)
    text = (tree / executor).read_text()
    changed = text.replace('"""\nLocalExecutor.', '"""\nPatched LocalExecutor.', 1)
    assert changed != text
    added = "airflow-core/src/airflow/executors/added_by_test.py"
    airflow.commit(tree, "Say that it is patched", {executor: changed, added: "VALUE = 1\n"})
    airflow.ok("export", "3.1.3", "--dir", tree)

    code = "import airflow.executors.local_executor as e; print(e.__doc__.split()[0])"
    found = {}
    for options in (["--stock"], []):
        python = Path(airflow.ok("python", "3.1.3", *options).splitlines()[-1])
        assert airflow.ok("run", "3.1.3", *options, "--", "airflow", "version").splitlines()[-1] == "3.1.3"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        found[python.parent.parent.name] = done.stdout.strip()
        packages = site_packages(python)
        assert environment.damaged_files(packages, "apache-airflow-core") == []
        assert (packages / "airflow/executors/added_by_test.py").exists() == (not options)
        assert list((packages / "airflow/ui/dist/assets").glob("*.js"))
    assert found == {"stock": "LocalExecutor.", "patched": "Patched"}


@pytest.mark.network
def test_pins_are_what_resolving_gives_now_and_always(airflow):
    base = airflow.root / "airflow-core" / "3.1.3"
    before = {path.name: path.read_text() for path in base.glob("*constraints.txt")}
    assert sorted(before) == ["constraints.txt", "test-constraints.txt"]
    # What is set up on one machine must not get into the files.
    airflow.env |= {"UV_FIND_LINKS": str(airflow.root), "UV_RESOLUTION": "lowest", "UV_EMIT_INDEX_URL": "1"}
    airflow.ok("constraints", "3.1.3")
    assert {path.name: path.read_text() for path in base.glob("*constraints.txt")} == before
