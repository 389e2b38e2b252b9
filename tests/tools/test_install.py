# SPDX-License-Identifier: Apache-2.0
"""install and uninstall, of small projects and of Airflow itself. test_change is about each step on disk."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import sampleindex
import sampleset
from sampleset import snapshot

from patchsetlib.installs import describe, environment, inplace
from patchsetlib.shell import uv as uvtool

MODULE = sampleset.MODULE
CORE = {
    "airflow/first.py": MODULE,
    "airflow/second.py": MODULE,
    "airflow/config.yml": "value: old\n",
    "airflow/a, b.py": MODULE,
}
SDK = {"airflow/sdk/fourth.py": MODULE}
FIRST, SECOND, FOURTH = "airflow/first.py", "airflow/second.py", "airflow/sdk/fourth.py"
RIGHT = MODULE.replace("return 3\n", "return 33\n")
INFO = "apache_airflow_core-1.0.dist-info"


class Small:
    """A patch set for small projects that are called as Airflow's are, and an environment with them."""

    def __init__(self, repository: sampleset.Repository):
        self.repository = repository
        self.change = repository.change
        directory = repository.root.parent
        self.wheels = sorted(directory.glob("*.whl"))
        self.environment = directory / "an environment"
        self.python = self.environment / "bin" / "python"
        self.site = next(self.environment.glob("lib/python*/site-packages"), None)

    def make(self) -> None:
        toml = self.repository.base / "base.toml"
        toml.write_text(toml.read_text().partition("[[distribution]]")[0])
        for project, place, files in (
            ("apache-airflow-core", "airflow-core", CORE),
            ("apache-airflow-task-sdk", "task-sdk", SDK),
        ):
            wheel = sampleindex.wheel(files, project)
            name = f"{project.replace('-', '_')}-1.0-py3-none-any.whl"
            (self.repository.root.parent / name).write_bytes(wheel)
            sources = {f"src/{name}": content for name, content in files.items()}
            sha256 = hashlib.sha256(wheel).hexdigest()
            sampleset.add_distribution(self.repository, project, place, sources, sha256)
        self.uv("venv", "--quiet", "--python", sys.executable, self.environment)
        self.uv_install(*self.repository.root.parent.glob("*.whl"))
        self.change(
            {
                f"airflow-core/src/{FIRST}": RIGHT,
                f"airflow-core/src/{SECOND}": None,
                "airflow-core/src/airflow/config.yml": "value: new\n",
                "airflow-core/src/airflow/a, b.py": RIGHT,
                "airflow-core/src/airflow/new/third.py": RIGHT,
                "airflow-core/tests/unit/test_first.py": "def test_first():\n    pass\n",
                f"task-sdk/src/{FOURTH}": RIGHT,
            }
        )

    def uv(self, *args: str | Path) -> None:
        cache = {"UV_CACHE_DIR": str(self.repository.root.parent / "uv cache")}
        subprocess.run([uvtool.executable(), *args], check=True, capture_output=True, env=os.environ | cache)

    def uv_install(self, *wheels: Path) -> None:
        options = ("--quiet", "--offline", "--no-index", "--no-deps", "--reinstall", "--compile-bytecode")
        self.uv("pip", "install", *options, "--python", self.python, *wheels)

    def pip(self, *args: str | Path) -> None:
        """Run pip as if it was in the environment."""
        command = [sys.executable, "-m", "pip", "--quiet", "--python", self.python, *args]
        subprocess.run(command, check=True, capture_output=True, env=self.repository.env)

    def ok(self, verb: str, *args: str | Path) -> list[str]:
        """Run the verb, which must succeed; return its lines without the path of the environment."""
        out = self.repository.ok(verb, *args, "--python", self.python)
        return out.replace(f"{self.site}/", "").splitlines()

    def fails(self, verb: str, *args: str | Path) -> str:
        """Run the verb, which must fail with one line and change nothing; the same with --dry-run."""
        before = snapshot(self.site)
        said = [
            self.repository.fails(verb, *args, *more, "--python", self.python)
            for more in ((), ("--dry-run",))
        ]
        assert said[0] == said[1]
        assert snapshot(self.site) == before
        return said[0].replace(f"{self.site}/", "")

    def step(self, module: str) -> int:
        code = f"import airflow.{module} as module; print(module.step_3())"
        return int(subprocess.run([self.python, "-c", code], check=True, capture_output=True).stdout)


@pytest.fixture(scope="module")
def _small(_pristine, tmp_path_factory):
    repository = sampleset.copy(_pristine, tmp_path_factory.mktemp("small"))
    Small(repository).make()
    return repository


@pytest.fixture
def small(_small, tmp_path):
    return Small(sampleset.copy(_small, tmp_path))


DONE = [
    "create airflow/new/third.py",
    "change airflow/a, b.py",
    "change airflow/config.yml",
    f"change {FIRST}",
    f"delete {SECOND}",
    f"change {FOURTH}",
]


def test_install_and_uninstall(small):
    before = snapshot(small.site)
    assert sorted(small.ok("install", "auto", "--dry-run")) == sorted(DONE)
    assert snapshot(small.site) == before
    assert sorted(small.ok("install", "auto")) == sorted(DONE)
    assert [small.step(name) for name in ("first", "sdk.fourth", "new.third")] == [33, 33, 33]
    assert not (small.site / SECOND).exists()
    for name in ("first", "new/third"):
        module = small.site / "airflow" / f"{name}.py"
        # Python has not had to write it.
        (compiled,) = (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc")
        assert int.from_bytes(compiled.read_bytes()[8:12], "little") == int(module.stat().st_mtime)
    after = snapshot(small.site)
    assert small.ok("install", "1.0") == []
    assert snapshot(small.site) == after
    subprocess.run([small.python, "-OO", "-c", "import airflow.new.third, airflow.first"], check=True)
    done = small.ok("uninstall", "--dry-run")
    assert set(done) >= {"delete airflow/new/third.py", f"restore {FIRST}", f"restore {SECOND}"}
    assert small.ok("uninstall") == done
    assert snapshot(small.site) == before
    assert small.ok("uninstall") == []


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_reinstalled_and_removed(small, tool):
    small.ok("install", "auto")
    if tool == "pip":
        small.pip("install", "--no-index", "--no-deps", "--force-reinstall", *small.wheels)
    else:
        small.uv_install(*small.wheels)
    assert [small.step(name) for name in ("first", "second", "sdk.fourth")] == [3, 3, 3]
    assert not list(small.site.rglob(inplace.JOURNAL))
    assert not (small.site / "airflow" / "new").exists()
    assert small.ok("uninstall") == []
    assert sorted(small.ok("install", "auto")) == sorted(DONE)
    projects = ("apache-airflow-core", "apache-airflow-task-sdk")
    if tool == "pip":
        small.pip("uninstall", "--yes", *projects)
    else:
        small.uv("pip", "uninstall", "--python", small.python, *projects)
    # pip may leave a directory that two projects shared.
    assert not list(small.site.glob("airflow/*"))
    assert not list(small.site.glob("apache*"))


def test_one_distribution_reinstalled_or_removed(small):
    before = snapshot(small.site / "airflow" / "sdk")
    small.ok("install", "auto")
    small.uv_install(small.wheels[0])
    assert (small.step("first"), small.step("sdk.fourth")) == (3, 33)
    assert f"restore {FOURTH}" in small.ok("install", "auto")
    assert (small.step("first"), small.step("sdk.fourth")) == (33, 33)
    small.uv("pip", "uninstall", "--python", small.python, "apache-airflow-core")
    assert "has no apache-airflow-core; pip install apache-airflow-core" in small.fails("install", "auto")
    assert f"restore {FOURTH}" in small.ok("uninstall")
    assert snapshot(small.site / "airflow" / "sdk") == before


def test_older_series_is_taken_back_first(small):
    before = snapshot(small.site)
    small.ok("install", "auto")
    # The distribution that is no longer changed has to be stock again.
    small.change(
        {
            f"airflow-core/src/{FIRST}": MODULE.replace("return 3\n", "return 333\n"),
            f"task-sdk/src/{FOURTH}": MODULE,
        },
        "Take the step elsewhere",
    )
    done = small.ok("install", "auto")
    assert {f"restore {FOURTH}", f"restore {FIRST}", f"change {FIRST}"} <= set(done)
    assert f"change {FOURTH}" not in done
    assert (small.step("first"), small.step("sdk.fourth")) == (333, 3)
    assert len(list(small.site.rglob(inplace.JOURNAL))) == 1
    small.ok("uninstall")
    assert snapshot(small.site) == before


def test_patched_by_a_wheel(small):
    wheels = small.repository.root.parent / "wheels"
    for wheel in small.wheels:
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (downloads := small.repository.root / "work" / "downloads" / sha256).mkdir()
        shutil.copy(wheel, downloads)
    paths = list(map(Path, small.repository.ok("wheel", "1.0", "--dir", wheels).splitlines()))
    assert [path.name for path in paths] == [
        f"apache_airflow_{name}-1.0+localexecutor.2-py3-none-any.whl" for name in ("core", "task_sdk")
    ]
    assert sorted(wheels.iterdir()) == sorted(paths)
    small.uv_install(*paths)
    assert small.ok("install", "auto") == []
    assert small.fails("uninstall").endswith(
        "patched by wheels, not by install: apache-airflow-core and apache-airflow-task-sdk; "
        "pip install --force-reinstall --no-deps apache-airflow-core==1.0 apache-airflow-task-sdk==1.0"
    )
    small.change({f"airflow-core/src/{FIRST}": MODULE}, "Leave the step")
    assert "is patched already, by a wheel; " in small.fails("install", "auto")


def test_foreign_changes(small):
    def refused(name: str, *args: str) -> None:
        path = small.site / name
        content = path.read_bytes() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine = 1\n")
        assert f"{name} is neither stock nor patched: somebody else has changed it" in small.fails(*args)
        path.unlink() if content is None else path.write_bytes(content)

    refused(FIRST, "install", "auto")
    refused("airflow/new/third.py", "install", "auto")
    small.ok("install", "auto")
    refused(FOURTH, "uninstall")
    refused(FOURTH, "install", "auto")
    (small.site / INFO / inplace.JOURNAL / "before" / FIRST).unlink()
    assert f"before/{FIRST} is gone; pip install --force-reinstall" in small.fails("uninstall")


def test_no_base_for_it(small):
    directory = small.repository.root / "airflow-core" / "2.0"
    shutil.copytree(small.repository.base, directory)
    toml = (directory / "base.toml").read_text()
    (directory / "base.toml").write_text(
        toml.replace("default = true\n", "").replace('version = "1.0"', 'version = "2.0"')
    )
    said = small.fails("install", "2.0")
    assert "the series of 2.0 is not for apache-airflow-core 1.0 in" in said
    assert said.endswith("there is one: 1.0")
    shutil.rmtree(small.repository.base)
    assert "no series here is for apache-airflow-core 1.0 in" in small.fails("install", "auto")
    none = small.repository.fails("install", "auto", "--python", sys.executable)
    assert f"{sys.executable} has no apache-airflow-core; name the Python that Airflow runs with" in none
    assert "is not a Python that runs" in small.repository.fails("uninstall", "--python", "/bin/false")


def test_full_disk(small, tmp_path):
    copy = shutil.copytree(small.site, tmp_path / "copy", symlinks=True)
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=2m tmpfs '{small.site}' 2>/dev/null"):
        pytest.skip("no file system can be mounted here")
    try:
        shutil.copytree(copy, small.site, symlinks=True, dirs_exist_ok=True)
        with (small.site / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        before = snapshot(small.site)
        said = small.repository.fails("install", "auto", "--python", small.python)
        assert said.startswith(f"patchset: {small.site}/{INFO}/")
        assert "No space left on device; nothing is patched; " in said
        assert snapshot(small.site) == before
    finally:
        os.system(f"umount '{small.site}'")


def test_python_of_the_airflow_on_path(small):
    command = small.environment / "bin" / "airflow"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    # As pipx does.
    linked = small.repository.root.parent / "bin"
    linked.mkdir()
    (linked / "airflow").symlink_to(command)
    for directory in (linked, command.parent):
        small.repository.env["PATH"] = f"{directory}:{os.environ['PATH']}"
        assert len(small.repository.ok("install", "auto", "--dry-run").splitlines()) == len(DONE)


def test_not_installed_in_the_usual_form(small):
    core = small.site / INFO
    record = (core / "RECORD").read_text()
    (core / "RECORD").write_text(record.replace(FIRST, "elsewhere.py"))
    assert f"RECORD does not list {FIRST}; this is no installation by pip or uv" in small.fails(
        "install", "auto"
    )
    (core / "RECORD").unlink()
    assert "RECORD does not list airflow/a, b.py" in small.fails("install", "auto")
    (core / "RECORD").write_text(record)
    (small.site / "airflow" / "sdk").rename(small.site / "sdk")
    (small.site / "airflow" / "sdk").symlink_to("../sdk")
    assert "airflow/sdk is reached through a symbolic link" in small.fails("install", "auto")


def test_reached_through_symbolic_links(small):
    linked = small.repository.root.parent / "linked"
    linked.symlink_to(small.environment)
    before = snapshot(small.site)
    small.repository.ok("install", "auto", "--python", linked / "bin" / "python")
    assert small.step("first") == 33
    small.ok("uninstall")
    assert snapshot(small.site) == before


def test_running_from_it(small):
    code = (
        "import mmap, sys; file = open(sys.argv[1], 'rb'); "
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    # As a compiled module is.
    command = [sys.executable, "-c", code, small.site / INFO / "METADATA"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        for verb in (("install", "auto"), ("uninstall",)):
            said = small.fails(*verb)
            assert re.search(
                rf"running from it: {process.pid} \(.+; stop them, or give --even-while-run", said
            )
            assert small.ok(*verb, "--even-while-running")
        process.stdin.close()
    assert small.ok("install", "auto")


def test_no_permission(small):
    (small.site / "airflow").chmod(0o555)
    before = snapshot(small.site)
    tool = small.repository.command("--quiet", "install", "auto", "--python", small.python)
    done = subprocess.run(
        [*sampleset.UNPRIVILEGED, *tool], env=small.repository.env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"patchset: no permission to write to {small.site}/airflow; .*\n", done.stderr)
    assert snapshot(small.site) == before


def test_another_run(small):
    descriptor = os.open(small.site / INFO, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for verb in (("install", "auto"), ("uninstall",)):
            assert "another run is changing" in small.fails(*verb)
    finally:
        os.close(descriptor)


def test_killed(small):
    """The last rename of all is that of a file of the second distribution."""
    before = snapshot(small.site)
    for last in (RIGHT, None):
        driver = (
            "import os, runpy, signal, sys; replace = os.replace\n"
            "def stop(source, target):\n"
            "    if str(target).endswith(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
            "    replace(source, target)\n"
            "os.replace = stop; sys.path[0] = sys.argv[2]\n"
            "from patchsetlib.cli import main; main(sys.argv[3:])"
        )
        tool = [sys.executable, "-c", driver, FOURTH, small.repository.root / "scripts"]
        command = [*tool, "--quiet", "install", "auto", "--python", small.python]
        done = subprocess.run(command, env=small.repository.env, capture_output=True)
        assert done.returncode == -signal.SIGKILL
        assert (small.step("first"), small.step("sdk.fourth")) == (33, 3)
        if last:
            assert f"restore {FIRST}" in small.ok("install", "auto")
            assert (small.step("first"), small.step("sdk.fourth")) == (33, 33)
        small.ok("uninstall")
        assert snapshot(small.site) == before


# Of a whole environment, only these are looked at.
SEEN = ("airflow/**/*", "apache_airflow*/**/*")


@pytest.fixture
def airflow(every_release, tmp_path):
    """A copy of an environment with stock Airflow with the same files: hard links, as uv makes them."""
    python = environment.test_python(every_release)
    (stock,) = python.parent.parent.glob("lib/python*/site-packages")
    before = snapshot(stock, *SEEN)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-al", python.parent.parent, copy], check=True)
    yield every_release, copy / "bin" / "python"
    assert snapshot(stock, *SEEN) == before


def tool(verb: str, *args: str | Path) -> list[str]:
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    return [sys.executable, "-I", str(scripts / "patchsetlib"), "--quiet", verb, *map(str, args)]


@pytest.mark.network
def test_airflow(airflow, tmp_path):
    base, python = airflow
    assert describe.describe(python).state == describe.STOCK
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    before = snapshot(site, *SEEN)
    subprocess.run(tool("install", "auto", "--python", python), check=True, stdout=subprocess.DEVNULL)
    found = describe.describe(python)
    assert (found.state, found.commit) == (
        describe.PATCHED,
        base.commits_file.read_text().splitlines()[-1].split()[0],
    )
    variables = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    code = "import airflow.executors.local_executor_pool, airflow; print(airflow.__version__)"
    done = subprocess.run([python, "-c", code], env=variables, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == base.version
    subprocess.run(tool("uninstall", "--python", python), check=True, stdout=subprocess.DEVNULL)
    assert snapshot(site, *SEEN) == before


@pytest.mark.network
@pytest.mark.nightly
def test_airflow_killed_at_random(airflow):
    _, python = airflow
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    before = snapshot(site, *SEEN)
    dice = random.Random(12)
    lengths, kills = {"install": 2.0, "uninstall": 1.0}, 0
    while kills < 30:
        for verb in ("install", "uninstall"):
            args = ["auto"] if verb == "install" else []
            command = tool(verb, *args, "--python", python)
            try:
                subprocess.run(
                    command, timeout=dice.uniform(0, lengths[verb]), check=True, stdout=subprocess.DEVNULL
                )
            except subprocess.TimeoutExpired:  # it was killed
                kills += 1
            if dice.random() < 0.3:
                subprocess.run(
                    tool("install", "auto", "--python", python), check=True, stdout=subprocess.DEVNULL
                )
                assert describe.describe(python).state == describe.PATCHED
        subprocess.run(tool("uninstall", "--python", python), check=True, stdout=subprocess.DEVNULL)
        assert snapshot(site, *SEEN) == before


@pytest.mark.network
def test_wheels_of_airflow(airflow_release):
    """The patched environment has the patched wheels over the published ones."""
    python = environment.python(airflow_release, patched=True)
    found = describe.describe(python)
    assert found.state == describe.PATCHED
    assert found.part().version == f"{airflow_release.version}{airflow_release.local_version}"
    for command in (
        [sys.executable, "-m", "pip", "--python", python, "check"],
        [uvtool.executable(), "pip", "check", "--quiet", "--python", python],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
