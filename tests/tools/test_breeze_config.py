# SPDX-License-Identifier: Apache-2.0
"""The files for Breeze, read and sourced as its entry points do it, and ``pss`` on real processes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from patchsetlib.installs import environment
from patchsetlib.measure import memory
from patchsetlib.patches import base as bases
from patchsetlib.shell.paths import ROOT

CONFIG = ROOT / "breeze-config"
ENV_FILE = CONFIG / "environment_variables.env"
DAG = CONFIG / "dags" / "patchset_mapped.py"
MIB = 2**20
# Those of `breeze shell` and `breeze start-airflow`, and those of `breeze exec`.
SHELL_OPTIONS = ["set +e -uo pipefail", "set -euo pipefail"]

_spec = importlib.util.spec_from_file_location("pss", CONFIG / "pss.py")
assert _spec is not None
assert _spec.loader is not None
pss = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pss)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What Breeze mounts as /files, made with the lines of the README."""
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    lines = re.search(
        r"^mkdir -p files/.*?(?=^```)", (CONFIG / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert lines
    for _ in range(2):  # a second time brings it up to date
        subprocess.run(
            ["bash", "-euc", lines[0]], cwd=checkout, env=os.environ | {"PATCHSET": str(ROOT)}, check=True
        )
    return checkout / "files"


def enter(files: Path, command: str, *, options: str = SHELL_OPTIONS[1], **variables: str) -> str:
    """Do what an entry point does: read the settings, source init.sh, become a shell. Return its output."""
    config, dags = shlex.quote(str(files / "airflow-breeze-config")), shlex.quote(str(files / "dags"))
    script = f"""
        {options}
        export AIRFLOW__CORE__DAGS_FOLDER={dags}
        mkdir -p {dags}
        before=$SHELLOPTS
        pushd {config} >/dev/null
        set -o allexport
        source environment_variables.env
        set +o allexport
        popd >/dev/null
        for twice in 1 2; do
            pushd {config} >/dev/null
            source init.sh
            popd >/dev/null
        done
        [[ $before == "$SHELLOPTS" ]] || echo "init.sh has changed an option of the shell"
        exec bash -c {shlex.quote(command)}
    """
    home = files.parent / "home"
    home.mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={"HOME": str(home), "PATH": path} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert list(home.iterdir()) == []
    return f"{done.stdout}{done.stderr}[{done.returncode}]"


def test_bash_understands_them():
    for file in (ENV_FILE, CONFIG / "init.sh"):
        done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", SHELL_OPTIONS)
def test_entering(files: Path, options: str):
    said = enter(files, 'echo "$AIRFLOW__CORE__PARALLELISM"; type -t pss', options=options)

    assert said == "16\nfunction\n[0]"
    assert (files / "dags" / DAG.name).read_text() == DAG.read_text()


def test_a_dag_that_was_changed_in_its_folder_stays(files: Path):
    enter(files, "true")
    dag = files / "dags" / DAG.name
    dag.write_text("# mine\n")

    assert enter(files, "true") == "[0]"
    assert dag.read_text() == "# mine\n"


def test_a_newer_dag_replaces_the_copy(files: Path):
    enter(files, "true")
    source = files / "airflow-breeze-config" / "dags" / DAG.name
    source.write_text("# newer\n")
    os.utime(source, (2**31, 2**31))

    enter(files, "true")

    assert (files / "dags" / DAG.name).read_text() == "# newer\n"


@pytest.mark.parametrize("options", SHELL_OPTIONS)
def test_breeze_starts_when_the_dags_cannot_be_copied(files: Path, options: str):
    shutil.rmtree(files / "airflow-breeze-config" / "dags")

    said = enter(files, "echo started", options=options)

    assert "the Dags could not be copied to" in said
    assert said.startswith("started\n")
    assert said.endswith("[0]")


def test_without_a_folder_for_dags(files: Path):
    done = subprocess.run(
        ["bash", "-euc", f"source {shlex.quote(str(CONFIG / 'init.sh'))}; type -t pss"],
        cwd=files,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("function\n", "")


def settings() -> dict[str, str]:
    """Return the settings of the file and those that are proposed in it as comments."""
    return dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", ENV_FILE.read_text(), re.MULTILINE))


def test_settings_are_what_bash_reads(files: Path):
    """Each is one plain word, so that other readers of such files (docker --env-file) get the same."""
    active = {key: value for key, value in settings().items() if f"\n{key}=" in ENV_FILE.read_text()}
    said = enter(files, "env")
    assert len(active) >= 3
    for key, value in active.items():
        assert f"\n{key}={value}\n" in f"\n{said}"


def test_nothing_that_overrides_options_of_breeze():
    taken = {"EXECUTOR", "LOAD_EXAMPLES", "AUTH_MANAGER", "DAGS_FOLDER", "SQL_ALCHEMY_CONN", "JWT_SECRET"}
    assert {key.rpartition("__")[2] for key in settings()} & taken == set()


def test_the_dag_reads_the_other_settings():
    own = {key for key in settings() if not key.startswith("AIRFLOW__")}
    assert own == set(re.findall(r'environ\.get\("(\w+)"', DAG.read_text()))


# Starts a tree of processes, each with its title in argv[0]. Each writes a byte when it is there, and stays
# until its stdin ends.
TREE = """
import json, os, sys
STAY = (
    "import os, socket, sys; held = b'x' * (int(sys.argv[1]) << 20); "
    "server = socket.create_server(('127.0.0.1', 0)) if sys.argv[2] == 'True' else None; "
    "os.write(1, b'x'); os.read(0, 1)"
)
def become(title, children=(), *, hold=0, listen=False):
    for child in children:
        if os.fork() == 0:
            become(*child[:2], **child[2])
    # Python looks for its libraries beside argv[0].
    env = os.environ | {"PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}"}
    os.execve(sys.executable, [title, "-c", STAY, str(hold), str(listen)], env)
title, children, options = json.loads(sys.argv[1])
become(title, children, **options)
"""
UUID = "01a20269-e990-7b01-94f1-482059a33537"
SCHEDULER = "/usr/python/bin/python3.12 /usr/python/bin/airflow scheduler"
API_SERVER = "airflow api_server -- host:0.0.0.0 port:8080"
DAG_PROCESSOR = "/usr/python/bin/python -I -m airflow dag-processor"
TRIGGERER = (
    "/usr/python/bin/python /usr/bin/debugpy --listen 0.0.0.0:50234 --wait-for-client -m airflow triggerer"
)
AIRFLOW = (
    "tmux new-session -d -s Airflow",
    [
        (
            SCHEDULER,
            [
                ("airflow serve-logs", [], {}),
                (SCHEDULER, [], {"listen": True}),
                # A worker that has no title of its own yet.
                (SCHEDULER, [], {}),
                ("airflow worker -- LocalExecutor: <idle>", [], {"hold": 5}),
                ("airflow worker -- LocalExecutor: <idle>", [], {"hold": 15}),
                ("airflow worker -- LocalExecutor: <idle>", [], {"hold": 40}),
                (
                    f"airflow worker -- LocalExecutor: {UUID}",
                    [(f"airflow worker -- {UUID}", [("bash -c true", [], {})], {})],
                    {},
                ),
                (
                    "python -c from multiprocessing.forkserver import main; main(5, 6)",
                    [("airflow worker -- LocalExecutor [team_a]: <idle>", [], {})],
                    {},
                ),
                ("python -c from multiprocessing.resource_tracker import main;main(9)", [], {}),
            ],
            {},
        ),
        (API_SERVER, [("python -c from multiprocessing.spawn import spawn_main", [], {})], {}),
        (DAG_PROCESSOR, [(DAG_PROCESSOR, [], {})], {}),
        (TRIGGERER, [], {}),
        ("airflow celery worker", [], {}),
        # Not Airflow, whatever they talk of.
        ("bash -c airflow scheduler", [], {}),
        ("vim airflow scheduler", [], {}),
        ("python start.py airflow scheduler", [], {}),
    ],
    {},
)
EXPECTED = {
    pss.SCHEDULER: 2,
    pss.SERVE_LOGS: 1,
    pss.HEALTH_CHECK: 1,
    pss.FORK_SERVER: 1,
    pss.WORKER_IDLE: 4,
    pss.WORKER_BUSY: 1,
    pss.TASK: 2,
    pss.API_SERVER: 2,
    pss.DAG_PROCESSOR: 2,
    pss.TRIGGERER: 1,
    pss.OTHER: 2,
}


def count(tree: tuple) -> int:
    return 1 + sum(count(child) for child in tree[1])


@contextmanager
def running(tree: tuple) -> Iterator[int]:
    """Run a tree of processes and give the process id of its root."""
    command = [sys.executable, "-c", TREE, json.dumps(tree)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            there = 0
            while there < count(tree):
                assert select.select([process.stdout], [], [], 30)[0], f"{there} of {count(tree)} processes"
                there += len(os.read(process.stdout.fileno(), count(tree)))
            yield process.pid
        finally:
            process.stdin.close()
            process.stdout.read()  # until the last of them has ended


def test_pss_prints_the_table_by_role(files: Path):
    with running(AIRFLOW) as root:
        said = enter(files, f"pss {root}")

    assert said.endswith("\n[0]")
    head, *lines = said.splitlines()[:-1]
    assert head.split() == ["MiB", "processes", "USS", "median", "USS", "PSS"]
    rows = {line[:14].strip(): line[14:].split() for line in lines}
    assert {role: int(row[0]) for role, row in rows.items()} == EXPECTED | {"all": sum(EXPECTED.values())}
    median, uss, total = (float(figure) for figure in rows[pss.WORKER_IDLE][1:])
    # They hold 0, 5, 15 and 40 MiB, and Python has some more in each.
    python = median - (5 + 15) / 2
    assert 0 < python < 20
    assert abs(uss - (0 + 5 + 15 + 40) - 4 * python) < 2
    assert uss < total < uss + 4 * 20
    others = [float(row[3]) for role, row in rows.items() if role != "all"]
    assert abs(float(rows["all"][3]) - sum(others)) < 1


def test_pss_finds_all_of_the_machine():
    with running((SCHEDULER, [], {})) as root:
        everything, own = pss.running(), pss.running([root])
    assert [len(own[pss.SCHEDULER]), len(own)] == [1, 1]
    assert len(everything[pss.SCHEDULER]) >= 1


def test_pss_without_airflow(files: Path):
    with running(("sleep", [], {})) as root:
        assert enter(files, f"pss {root}") == "pss: no Airflow process is running here\n[1]"
    assert enter(files, "pss airflow") == "pss: only process ids are taken; pss [PID ...]\n[2]"


@pytest.mark.parametrize(
    ("title", "parent"),
    [
        (SCHEDULER, None),
        ("airflow serve-logs", memory.SCHEDULER),
        ("airflow worker -- LocalExecutor: <idle>", memory.SCHEDULER),
        ("airflow worker -- LocalExecutor [team_a]: <idle>", memory.SNAPSHOT),
        (f"airflow worker -- LocalExecutor: {UUID}", memory.SCHEDULER),
        (f"airflow worker -- LocalExecutor: {UUID}", memory.WORKER_BUSY),
        (f"airflow worker -- {UUID}", memory.WORKER_BUSY),
        ("bash -c true", memory.TASK),
        ("python -c from multiprocessing.forkserver import main; main(5, 6)", memory.SCHEDULER),
        ("python -c something", memory.SCHEDULER),
    ],
)
def test_roles_are_those_of_the_benchmarks(title: str, parent: str | None):
    names = {memory.WORKER_IDLE: pss.WORKER_IDLE, memory.WORKER_BUSY: pss.WORKER_BUSY}
    names[memory.SNAPSHOT] = pss.FORK_SERVER

    role = memory.classify(title, parent)

    assert pss.classify(title, parent and names.get(parent, parent)) == names.get(role, role)


# Runs in an environment with Airflow: titles set as Airflow sets them, the Dag, and which options there are.
INSIDE = """
import importlib.util, json, os, sys
from airflow.configuration import retrieve_configuration_description
from setproctitle import setproctitle
config = sys.argv[1]
options = [
    [section, option]
    for section, content in retrieve_configuration_description(include_providers=False).items()
    for option in content["options"]
]
spec = importlib.util.spec_from_file_location("the_dag", f"{config}/dags/patchset_mapped.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.path.insert(0, config)
import pss
ready, go = os.pipe(), os.pipe()
titles = ["airflow worker -- LocalExecutor: <idle>", "airflow serve-logs", "airflow api_server -- host:x"]
for title in titles:
    if os.fork() == 0:
        os.close(go[1])
        setproctitle(title)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
while len(titles) > 0:
    titles = titles[len(os.read(ready[0], 9)):]
found = pss.running([os.getpid()])
os.close(go[1])
print(json.dumps({
    "options": options,
    "tasks": [module.TASKS, module.SECONDS, module.CONCURRENCY],
    "dag": module.patchset_mapped().dag_id,
    "found": {role: len(each) for role, each in found.items()},
}))
"""


@pytest.mark.network
@pytest.mark.base("3.1.3")
def test_with_airflow(files: Path):
    python = environment.python(bases.load("3.1.3"), patched=True)
    script = f"{shlex.quote(str(python))} -c {shlex.quote(INSIDE)} {shlex.quote(str(CONFIG))}"
    said = enter(files, script, AIRFLOW_HOME=str(files / "airflow"))
    inside = json.loads(said.splitlines()[-2])

    known = {f"AIRFLOW__{section}__{option}".upper() for section, option in inside["options"]}
    used = {key for key in settings() if key.startswith("AIRFLOW__")}
    assert len(used) >= 4
    assert used - known == set()
    assert inside["dag"] == DAG.stem
    assert inside["tasks"] == [96, 2.0, 0]
    assert inside["found"] == {pss.WORKER_IDLE: 1, pss.SERVE_LOGS: 1, pss.API_SERVER: 1}
