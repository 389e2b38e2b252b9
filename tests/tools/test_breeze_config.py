# SPDX-License-Identifier: Apache-2.0
"""The files for Breeze: sourced as its entry points do it, and understood by Airflow."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from patchsetlib.installs import environment
from patchsetlib.measure.workload import DAG_ID
from patchsetlib.patches import base as bases
from patchsetlib.shell.paths import ROOT

CONFIG = ROOT / "breeze-config"
ENV_FILE = CONFIG / "environment_variables.env"
# What an entry point of Breeze does, and once more.
ENTER = "set {}; set -o allexport; . ./environment_variables.env; set +o allexport; . ./init.sh; . ./init.sh"
UNKNOWN = """
import os
from airflow.configuration import conf
names = [name.lower().split("__")[1:] for name in os.environ if name.startswith("AIRFLOW__")]
known = conf.configuration_description
unknown = [name for name in names if name[1] not in known[name[0]]["options"]]
from airflow.dag_processing.dagbag import DagBag
print(unknown, sorted(DagBag(os.environ["DAGS"]).dags))
"""


# The options of the shell in `breeze shell` and `start-airflow`, and in `breeze exec`.
@pytest.mark.parametrize("options", ["+e -uo pipefail", "-euo pipefail"])
def test_sourcing_copies_the_dag_but_not_over_a_newer_one(options: str, tmp_path: Path):
    for file in (ENV_FILE, CONFIG / "init.sh"):
        subprocess.run(["bash", "-n", str(file)], check=True)
    env = os.environ | {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags")}
    command = ["bash", "-c", f"{ENTER.format(options)}; echo $AIRFLOW__CORE__PARALLELISM"]
    copy = tmp_path / "dags" / "patchset_mapped.py"

    for expected in ((CONFIG / "dags" / copy.name).read_text(), "# mine\n"):
        done = subprocess.run(command, cwd=CONFIG, env=env, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("16\n", "", 0)
        assert copy.read_text() == expected
        copy.write_text("# mine\n")


@pytest.mark.network
def test_airflow_knows_the_options_and_parses_the_dag(tmp_path: Path):
    lines = [line.split("=", 1) for line in ENV_FILE.read_text().splitlines() if line[:1].isalpha()]
    env = dict(lines) | {
        "AIRFLOW_HOME": str(tmp_path),
        "DAGS": str(CONFIG / "dags"),
        "PATH": os.environ["PATH"],
    }
    python = environment.python(bases.default(), patched=True)

    done = subprocess.run([python, "-B", "-c", UNKNOWN], env=env, capture_output=True, text=True, check=False)

    assert done.stdout.splitlines()[-1:] == [f"[] ['{DAG_ID}']"], done.stderr
