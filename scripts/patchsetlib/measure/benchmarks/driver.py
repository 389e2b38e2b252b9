# SPDX-License-Identifier: Apache-2.0
"""Run a script of ``scripts/probes`` inside the Airflow that is measured, without a deployment around it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from patchsetlib.measure.instance import Instance
from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT, display

SCRIPTS = ROOT / "scripts" / "probes"


def drive(label: str, python: Path, home: Path, script: str, *args: str, timeout: float) -> dict:
    """
    Run a script to its end, and return the JSON object that it prints last.

    :param label: whose run it is, for messages
    :param home: its ``AIRFLOW_HOME``; made if it does not exist
    :param timeout: seconds
    :raises PatchsetError: if it fails, takes longer, or prints something else
    """
    config = {"logging.logging_level": "ERROR"}
    # Only for its environment: the same configuration as that of a deployment, and nothing of the user's.
    instance = Instance(python, home, dags=home / "dags", config=config, name=label)
    home.mkdir(parents=True, exist_ok=True)
    (home / "airflow.cfg").write_text("# Everything is set in the environment.\n", encoding="utf-8")
    env = instance.env | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), str(SCRIPTS / script), *args]
    try:
        done = processes.run(command, env=env, cwd=home, capture=True, timeout=timeout)
    except subprocess.TimeoutExpired as e:
        raise PatchsetError(f"{label}: {script} {' '.join(args[:1])} took more than {timeout:.0f} s") from e
    log = home / f"{Path(script).stem}.log"
    log.write_text(f"{' '.join(command)}\n{done.stdout}{done.stderr}", encoding="utf-8")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PatchsetError(f"{label}: {script} failed: {last[0]}", f"see {display(log)}")
    try:
        return json.loads(lines[-1])
    except ValueError as e:
        raise PatchsetError(f"{label}: {script} printed no result", f"see {display(log)}") from e
