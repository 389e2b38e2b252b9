# SPDX-License-Identifier: Apache-2.0
"""Files from a package index: found, verified, kept; and every way in which that fails says so."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sampleindex
from sampleindex import PROJECT, WHEEL
from sampleset import SCRIPTS

from patchsetlib.patches import artifacts
from patchsetlib.patches.base import Artifact
from patchsetlib.shell.errors import PatchsetError

CONTENT = sampleindex.wheel({"airflow/first.py": "def step_3():\n    return 3\n"})
ARTIFACT = Artifact(PROJECT, "1.0", "wheel", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def index(tmp_path, monkeypatch):
    index = sampleindex.Index({WHEEL: CONTENT})
    for name in ("UV_OFFLINE", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PATCHSET_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(artifacts._RETRY, "backoff_factor", 0)
    yield index
    index.close()


def kept(tmp_path):
    return [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_fetch_downloads_once(index, tmp_path):
    path = artifacts.fetch(ARTIFACT)
    assert path == tmp_path / "work" / "downloads" / ARTIFACT.sha256 / WHEEL
    assert path.read_bytes() == CONTENT
    index.close()
    assert artifacts.fetch(ARTIFACT) == path
    assert kept(tmp_path) == [path]


def test_damaged_download_is_replaced(index):
    path = artifacts.fetch(ARTIFACT)
    path.write_bytes(b"damaged")
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({"PIP_INDEX_URL": "URL"}, ""),
        ({"UV_INDEX": "mine=URL"}, ""),
        ({}, '[[index]]\nurl = "URL"\ndefault = true\n'),
        ({}, 'index-url = "URL"\n'),
        ({"PIP_INDEX_URL": "http://elsewhere.invalid/"}, 'index-url = "URL"\n'),
    ],
)
def test_index_of_the_users_settings(index, monkeypatch, tmp_path, variables, settings):
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("URL", index.url))
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "config" / "uv" / "uv.toml").write_text(settings.replace("URL", index.url))
    # In a process of its own, since what pip says is read once.
    code = "import sys; from patchsetlib.patches.artifacts import *; print(fetch(Artifact(*sys.argv[1:])))"
    command = [sys.executable, "-c", code, *dataclasses.astuple(ARTIFACT)]
    env = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).read_bytes() == CONTENT


def test_credentials(index, monkeypatch, capfd):
    index.credentials = "Basic " + base64.b64encode(b"user:secret").decode()
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT
    index.credentials = "Basic " + base64.b64encode(b"other:one").decode()
    artifacts.fetch(ARTIFACT).unlink()
    with pytest.raises(PatchsetError) as caught:
        artifacts.fetch(ARTIFACT)
    assert "secret" not in f"{caught.value}{capfd.readouterr()}"


def test_other_content_on_the_index(index, tmp_path):
    with pytest.raises(PatchsetError, match="the index has no wheel of demo-core") as caught:
        artifacts.fetch(replace(ARTIFACT, sha256="0" * 64))
    assert ARTIFACT.sha256 in caught.value.problem
    assert kept(tmp_path) == []


def test_other_content_than_the_index_says(index, tmp_path):
    index.sent[WHEEL] = CONTENT + b"more"
    with pytest.raises(PatchsetError, match="the index is damaged"):
        artifacts.fetch(ARTIFACT)
    assert kept(tmp_path) == []


def test_transient_failures_are_tried_again(index):
    index.faults = [503, 500, 429]
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT
    assert index.faults == []


@pytest.mark.parametrize("faults", [[404, 500], ["cut"], [500] * 10])
def test_lasting_failures(index, tmp_path, faults):
    index.faults = list(faults)
    with pytest.raises(PatchsetError, match=r"cannot download http://127\.0\.0\.1:\d+/files/") as caught:
        artifacts.fetch(ARTIFACT)
    assert "\n" not in str(caught.value)
    assert len(index.faults) in (len(faults) - 1, 5)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("change", [{"version": "9.9", "sha256": "0"}, {"project": "no-such-project"}])
def test_not_on_the_index(index, change, capfd):
    with pytest.raises(PatchsetError, match="uv pip compile failed; see above"):
        artifacts.fetch(replace(ARTIFACT, **change))
    assert "No solution found" in capfd.readouterr().err
