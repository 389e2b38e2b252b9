# SPDX-License-Identifier: Apache-2.0
"""Environments, built for real: of a small project on an index of our own, and of Airflow itself."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sampleindex
import sampleset

from patchsetlib.shell import uv as uvtool

MODULE = "".join(f"def step_{n}():\n    return {n}\n\n\n" for n in range(20))
WHEEL = sampleindex.wheel(
    {"airflow/first.py": MODULE, "airflow/second.py": MODULE, "airflow/ui/dist/index.html": "compiled"}
)
FIRST = "airflow-core/src/airflow/first.py"
SECOND = "airflow-core/src/airflow/second.py"
REPOSITORY = Path(__file__).resolve().parents[2]
OWN_VERSION = ".".join(map(str, sys.version_info[:3]))
PATIENCE = 300


class Sample:
    """A patch set for the small project: the tools, a base 1.0 with an empty series, and an index."""

    def __init__(self, repository, index):
        self.repository = repository
        self.change = repository.change
        self.index = index
        self.place = repository.root / "work" / "1.0" / f"python-{OWN_VERSION}"
        sha256 = hashlib.sha256(WHEEL).hexdigest()
        toml = repository.base / "base.toml"
        entry = r'(\nwheel = "|\[wheel\][^\[]*sha256 = ")\w+'
        toml.write_text(re.sub(entry, rf"\g<1>{sha256}", toml.read_text()))
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

    def python(self, *args: str) -> Path:
        """Run the verb ``python`` and return the path on the last line of its stdout."""
        return Path(self.repository.ok("python", "1.0", *args).splitlines()[-1])

    def fails(self, *args: str, code: int = 1) -> str:
        """Run the verb ``python``, which must fail and leave nothing half-made; return what was said."""
        done = self.repository.run("--quiet", "python", "1.0", *args)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.splitlines()[-1].startswith("patchset: ")
        assert "Traceback" not in done.stderr
        assert all((path / "patchset.json").exists() for path in self.place.glob("*"))
        return done.stderr


@pytest.fixture
def sample(empty):
    index = sampleindex.Index({sampleindex.WHEEL: WHEEL})
    yield Sample(empty, index)
    index.close()


def step(python: Path, module: str = "first", number: int = 3) -> str:
    code = f"import airflow.{module} as module; print(module.step_{number}())"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def script(python: Path) -> int:
    """Return the exit code of the small project's script: what ``step_3`` returns."""
    return subprocess.run([python.parent / "demo"], check=False).returncode


def site_packages(python: Path) -> Path:
    (path,) = python.parent.parent.glob("lib/python*/site-packages")
    return path


def test_patched_beside_stock(sample):
    sample.change(
        {
            FIRST: MODULE.replace("return 3\n", "return 33\n"),
            SECOND: None,
            "airflow-core/src/airflow/new/third.py": "def step_3():\n    return 333\n",
            "airflow-core/tests/unit/test_first.py": "def test_first():\n    pass\n",
        }
    )
    pythons = {option: sample.python(*option) for option in (("--stock",), ())}
    stock, patched = pythons.values()
    assert [python.parent.parent for python in pythons.values()] == [
        sample.place / "stock",
        sample.place / "patched",
    ]
    # The path of this repository has a space in it, which a "#!" line cannot hold.
    for python, result in ((stock, 3), (patched, 33)):
        assert (step(python), script(python)) == (str(result), result)
        assert list(site_packages(python).glob("airflow/__pycache__/first.*.pyc"))
    assert step(patched, "new.third") == "333"
    files = {str(path.relative_to(site_packages(patched))) for path in site_packages(patched).rglob("*.*")}
    assert {"airflow/first.py", "airflow/new/third.py", "airflow/ui/dist/index.html"} <= files
    assert "airflow/second.py" not in files
    assert not any("test_first" in name for name in files)
    # uv links files from its cache; an edit in place would have reached it and stock through that.
    assert step(stock, "second") == "3"
    # Nothing is done when nothing changed.
    sample.index.close()
    shutil.rmtree(sample.repository.env["UV_CACHE_DIR"])
    for option, python in pythons.items():
        done = sample.repository.run("python", "1.0", *option)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{python}\n", "")


def test_only_distributions_that_the_series_changes_are_patched(sample):
    sdk = sampleindex.wheel({"airflow/sdk/fourth.py": MODULE}, "demo-sdk")
    name = "demo_sdk-1.0-py3-none-any.whl"
    sample.index.files[name] = sdk
    hashes = [hashlib.sha256(content).hexdigest() for content in (WHEEL, sdk)]
    sampleset.add_distribution(
        sample.repository, "demo-sdk", "task-sdk", {"src/airflow/sdk/fourth.py": MODULE}, hashes[1]
    )
    pins = sample.repository.base / "constraints.txt"
    pins.write_text(f"demo-core==1.0 --hash=sha256:{hashes[0]}\ndemo-sdk==1.0 --hash=sha256:{hashes[1]}\n")
    sample.change({"task-sdk/src/airflow/sdk/fourth.py": MODULE.replace("return 3\n", "return 33\n")})
    python = sample.python()
    wheels = sample.repository.root / "work" / "1.0" / "wheels"
    assert [path.name for path in wheels.glob("*/*")] == ["demo_sdk-1.0+localexecutor.2-py3-none-any.whl"]
    assert (step(python), step(python, "sdk.fourth")) == ("3", "33")
    sample.change({FIRST: MODULE.replace("return 3\n", "return 333\n")}, "Take the other step right")
    assert sample.python() == python
    assert (step(python), step(python, "sdk.fourth")) == ("333", "33")
    assert sorted(path.name for path in wheels.glob("*/*")) == [
        "demo_core-1.0+localexecutor.3-py3-none-any.whl",
        "demo_sdk-1.0+localexecutor.2-py3-none-any.whl",
        "demo_sdk-1.0+localexecutor.3-py3-none-any.whl",
    ]
    assert (step(stock := sample.python("--stock")), step(stock, "sdk.fourth")) == ("3", "3")


def test_only_the_wheel_is_installed_again_when_the_series_changes(sample):
    sample.change({FIRST: MODULE.replace("return 3\n", "return 4\n")})
    python = sample.python()
    added = site_packages(python) / "added_by_the_user.py"
    added.touch()
    # The same size, so that bytecode of before would seem to be up to date.
    sample.change({FIRST: MODULE.replace("return 3\n", "return 5\n")}, "Take it elsewhere")
    assert sample.python() == python
    assert step(python) == "5"
    patch = sample.repository.patches[-1]
    good = patch.read_text()
    patch.write_text(good.replace("-    return 4\n", "-    return 99\n"))
    assert "does not apply" in sample.fails()
    assert step(python) == "5"
    patch.write_text(good)
    assert sample.python() == python
    assert added.exists()
    (sample.repository.base / "series").write_text("")
    assert sample.python() == python
    assert step(python) == "3"


def test_an_environment_is_made_anew_where_it_must(sample):
    python = sample.python("--stock")
    added = site_packages(python) / "added_by_the_user.py"
    added.touch()
    sample.pin(hashlib.sha256(WHEEL).hexdigest(), "# changed")
    assert sample.python("--stock") == python
    assert not added.exists()
    # The Python it was made with may go.
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert step(sample.python("--stock")) == "3"


def test_a_moved_repository_still_works(sample):
    sample.python("--stock")
    sample.repository.root.rename(sample.repository.root.with_name("moved"))
    sample.repository.root = sample.repository.root.with_name("moved")
    python = sample.python("--stock")
    assert python.is_relative_to(sample.repository.root)
    assert script(python) == 3


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


def test_other_file_on_the_index_than_pinned(sample):
    sample.pin("0" * 64)
    assert "Hash mismatch for `demo-core==1.0`" in sample.fails("--stock")


def test_wrong_python(sample):
    assert "no Python 3.98; name one of >=3.10 with" in sample.fails("--python", "3.98", code=2)
    sample.repository.env["PATCHSET_PYTHON"] = "/bin/sh"
    assert "no Python /bin/sh; name one of" in sample.fails(code=2)
    del sample.repository.env["PATCHSET_PYTHON"]
    toml = sample.repository.base / "base.toml"
    toml.write_text(toml.read_text().replace('">=3.10"', '">=3.98,<4"'))
    assert "no Python >=3.98,<4; name one of" in sample.fails(code=2)
    said = sample.fails("--python", sys.executable, code=2)
    assert f"Airflow 1.0 does not run on Python {OWN_VERSION}; name one of >=3.98,<4" in said


def test_python_by_version_path_and_variable(sample):
    python = sample.python("--stock")
    assert sample.python("--stock", "--python", sys.executable) == python
    sample.repository.env["PATCHSET_PYTHON"] = OWN_VERSION
    sample.repository.env["PATH"] = f"{Path(sys.executable).parent}:{sample.repository.env['PATH']}"
    assert sample.python("--stock") == python


@pytest.fixture
def slow(sample):
    """A build that has come as far as a download that does not end."""
    sample.repository.ok("status")  # compiles the tools
    sample.index.gate.clear()
    process = subprocess.Popen(
        sample.repository.command("python", "1.0", "--stock"),
        cwd=sample.repository.root,
        env=sample.repository.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sample.index.asked.wait(PATIENCE)
    yield process
    sample.index.gate.set()
    process.kill()
    process.communicate()


def test_interrupted_build_leaves_nothing(sample, slow):
    slow.terminate()
    # The end of these streams is that of uv as well.
    output = slow.communicate(timeout=PATIENCE)
    assert slow.returncode == 128 + signal.SIGTERM
    assert output[1].splitlines()[-1] == "patchset: stopped"
    assert list(sample.place.iterdir()) == []
    sample.index.gate.set()
    assert step(sample.python("--stock")) == "3"


def test_killed_build_does_not_disturb_the_next_run(sample, slow):
    slow.kill()
    slow.wait()
    sample.index.gate.set()
    # At once, while what the killed one started may still be at work.
    assert step(sample.python("--stock")) == "3"


def test_two_at_once(sample, slow):
    second = subprocess.Popen(slow.args, cwd=sample.repository.root, env=sample.repository.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    sample.index.gate.set()
    outputs = [process.communicate(timeout=PATIENCE) for process in (slow, second)]
    assert (slow.returncode, second.returncode) == (0, 0), outputs
    assert outputs[0][0] == outputs[1][0]
    assert [path.name for path in sample.place.iterdir()] == ["stock"]
    assert step(sample.python("--stock")) == "3"


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
    # A Python that starts ignores SIGPIPE and SIGXFSZ itself, so another program must look.
    signals = sample.repository.ok(*run, "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
    assert [line.split()[1].strip("0") for line in signals.splitlines()] == ["", ""]
    sample.repository.env["AIRFLOW_HOME"] = "/elsewhere"
    assert sample.repository.ok(*run, "sh", "-c", "echo $AIRFLOW_HOME") == "/elsewhere\n"
    assert "cannot run no-such-command" in sample.repository.fails(*run, "no-such-command")
    assert "no command given" in sample.repository.fails("run", "1.0", "--stock", code=2)


def test_patched_wheel_is_a_valid_one_and_always_the_same(sample):
    sample.change({FIRST: "VALUE = 1\n", SECOND: None, "airflow-core/src/airflow/o dd, é.py": "VALUE = 2\n"})
    wheels = sample.repository.root / "work" / "1.0" / "wheels"
    contents = []
    for umask in (0o022, 0o077):
        shutil.rmtree(wheels, ignore_errors=True)
        sample.repository.ok("python", "1.0", preexec_fn=lambda umask=umask: os.umask(umask))
        (path,) = wheels.glob("*/*")
        assert path.name == "demo_core-1.0+localexecutor.2-py3-none-any.whl"
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    wheel = zipfile.ZipFile(io.BytesIO(contents[0]))
    names = wheel.namelist()
    assert sorted(names) == sorted(set(names))
    stock = zipfile.ZipFile(io.BytesIO(WHEEL)).namelist()
    new, old = "demo_core-1.0+localexecutor.2.dist-info/", "demo_core-1.0.dist-info/"
    expected = {name.replace(old, new) for name in stock} - {"airflow/second.py"} | {"airflow/o dd, é.py"}
    assert set(names) == expected
    assert wheel.getinfo("airflow/o dd, é.py").external_attr >> 16 & 0o777 == 0o644
    assert "\nVersion: 1.0+localexecutor.2\n" in wheel.read(f"{new}METADATA").decode()
    rows = list(csv.reader(wheel.read(f"{new}RECORD").decode().splitlines()))
    assert {row[0] for row in rows} == expected
    for name, digest, size in rows:
        content = wheel.read(name)
        if name != f"{new}RECORD":
            hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={hashed}", str(len(content)))


def test_wheel_that_is_not_the_one_of_the_series(sample):
    sample.change({"airflow-core/src/airflow/ui/dist/index.html": "in the sdist this is new\n"})
    said = sample.fails()
    assert "airflow/ui/dist/index.html is not as in the demo-core 1.0 that the series is for" in said


PINS = [
    *REPOSITORY.glob("airflow-core/*/*.txt"),
    *REPOSITORY.glob("scripts/requirements/*.txt"),
    *REPOSITORY.glob("tests/e2e/requirements/*.txt"),
]


@pytest.mark.network
@pytest.mark.parametrize("path", PINS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pins_are_what_the_command_at_their_head_makes_of_what_is_wanted(path, tmp_path):
    copy = (
        shutil.copytree(path.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.patch")) / path.name
    )
    command = shlex.split(path.read_text().splitlines()[1].lstrip("#"))
    assert command[:3] == ["uv", "pip", "compile"]
    command[0] = str(uvtool.executable())
    subprocess.run(command, cwd=copy.parent, env=uvtool.environment(), check=True, capture_output=True)
    assert copy.read_text() == path.read_text()
