# SPDX-License-Identifier: Apache-2.0
"""Files from a package index: found, verified, kept; and every way in which that fails says so."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest
import sampleindex
from sampleindex import PROJECT, WHEEL

from patchsetlib.patches import artifacts
from patchsetlib.patches.base import Artifact
from patchsetlib.shell.errors import PatchsetError

CONTENT = sampleindex.wheel({"airflow/first.py": "def step_3():\n    return 3\n"})
ARTIFACT = Artifact(PROJECT, "1.0", "wheel", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def index(tmp_path, monkeypatch):
    index = sampleindex.Index({WHEEL: CONTENT})
    for name in ("UV_OFFLINE", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv cache"))
    monkeypatch.setenv("PATCHSET_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(artifacts, "_PAUSE", 0.01)
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


def test_a_damaged_download_is_replaced(index):
    path = artifacts.fetch(ARTIFACT)
    path.write_bytes(b"damaged")
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT


def test_settings_for_other_purposes_do_not_matter(index, tmp_path, monkeypatch):
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2000-01-01")
    monkeypatch.setenv("UV_NO_BINARY", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "missing"))
    (tmp_path / "pyproject.toml").write_text("[tool.uv]\nrequired-version = '==0.0.1'\n")
    monkeypatch.chdir(tmp_path)
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT


def test_index_of_pip_is_used(index, monkeypatch, tmp_path):
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT


def test_index_with_credentials(index, monkeypatch):
    index.credentials = "Basic " + base64.b64encode(b"user:secret").decode()
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT


def test_credentials_are_not_shown(index, monkeypatch):
    index.credentials = "Basic " + base64.b64encode(b"user:other").decode()
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    with pytest.raises(PatchsetError) as caught:
        artifacts.fetch(ARTIFACT)
    assert "secret" not in str(caught.value)


def test_other_content_on_the_index(index, tmp_path):
    expected = "0" * 64
    with pytest.raises(PatchsetError) as caught:
        artifacts.fetch(replace(ARTIFACT, sha256=expected))
    assert "hash mismatch for the wheel of demo-core 1.0" in caught.value.problem
    assert expected in caught.value.problem
    assert ARTIFACT.sha256 in caught.value.problem
    assert index.downloads == 0 or not kept(tmp_path)


def test_other_content_than_the_index_says(index, tmp_path):
    other = CONTENT + b"more"
    url = f"{index.url.removesuffix('/simple')}/files/{WHEEL}"
    lock = f"""
[[packages]]
name = "demo-core"
[[packages.wheels]]
url = "{url}"
hashes = {{ sha256 = "{ARTIFACT.sha256}" }}
"""
    assert artifacts.choose(ARTIFACT, lock, tmp_path) == (url, WHEEL)
    artifacts.fetch(ARTIFACT).unlink()
    index.files[WHEEL] = other
    # uv remembers what the index said before; the file itself is what decides.
    with pytest.raises(PatchsetError, match=hashlib.sha256(other).hexdigest()):
        artifacts.fetch(ARTIFACT)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("faults", [[503], ["cut"], [500, "cut", 429]])
def test_transient_failures_are_tried_again(index, faults):
    index.faults = faults
    assert artifacts.fetch(ARTIFACT).read_bytes() == CONTENT
    assert index.faults == []


def test_local_index_without_url(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / WHEEL).write_bytes(CONTENT)
    lock = f"""
[[packages]]
name = "demo-core"
[[packages.wheels]]
name = "{WHEEL}"
path = "files/{WHEEL}"
hashes = {{ sha256 = "{ARTIFACT.sha256}" }}
"""
    assert artifacts.choose(ARTIFACT, lock, tmp_path) == ((tmp_path / "files" / WHEEL).as_uri(), WHEEL)


def test_sdist_that_was_not_released(tmp_path):
    lock = '[[packages]]\nname = "demo-core"\n'
    with pytest.raises(PatchsetError, match=r"expected .*, the index has none"):
        artifacts.choose(replace(ARTIFACT, kind="sdist"), lock, tmp_path)


def test_lasting_failures_are_not_tried_again(index, tmp_path):
    index.faults = [404, 500]
    with pytest.raises(PatchsetError, match=r"cannot download from 127\.0\.0\.1: Not Found"):
        artifacts.fetch(ARTIFACT)
    assert index.faults == [500]
    assert kept(tmp_path) == []


def test_failures_that_do_not_end(index, tmp_path):
    index.faults = [500] * 10
    with pytest.raises(PatchsetError, match="cannot download"):
        artifacts.fetch(ARTIFACT)
    assert len(index.faults) == 6
    assert kept(tmp_path) == []


@pytest.mark.parametrize("change", [{"version": "9.9"}, {"project": "no-such-project"}])
def test_not_on_the_index(index, change):
    with pytest.raises(PatchsetError, match="the package index has no"):
        artifacts.fetch(replace(ARTIFACT, **change))


def test_no_network(index, tmp_path, monkeypatch):
    index.close()
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(PatchsetError) as caught:
        artifacts.fetch(ARTIFACT)
    assert "cannot reach the package index" in caught.value.problem
    assert "\n" not in str(caught.value)
    assert kept(tmp_path) == []


def test_offline(index, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(PatchsetError, match="cannot reach the package index"):
        artifacts.fetch(ARTIFACT)
