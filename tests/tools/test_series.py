# SPDX-License-Identifier: Apache-2.0
"""A series and its patches as they are read."""

from __future__ import annotations

import shutil

import pytest
from sampleset import BODY, MODULE, edit

import patchsetlib.patches.base
from patchsetlib.patches import base as bases
from patchsetlib.patches import series
from patchsetlib.shell.errors import PatchsetError


@pytest.fixture
def base(repository, monkeypatch):
    monkeypatch.setattr(patchsetlib.patches.base, "ROOT", repository.root)
    return bases.load("1.0")


def edited(path, old: str, new: str) -> series.Patch:
    edit(path, (old, new))
    return series.parse(path)


def test_base(base):
    assert bases.default() == base
    assert base.released
    (core,) = base.distributions
    assert (core.project, core.directory, core.version) == ("demo-core", "airflow-core", "1.0")
    assert (core.sdist.kind, core.wheel.kind, core.wheel.version) == ("sdist", "wheel", "1.0")


def test_base_of_a_provider(repository, base):
    directory = repository.root / "providers" / "one" / "1.0"
    shutil.copytree(base.directory, directory)
    edit(directory / "base.toml", ('directory = "airflow-core"', 'directory = "providers/one"'))

    provider = bases.load("one-1.0")

    assert {"1.0", "one-1.0"} <= {*bases.all_bases()}
    assert (provider.name, provider.directory) == ("one-1.0", directory)
    assert provider.is_provider
    assert not bases.load("1.0").is_provider
    assert (provider.title, base.title) == ("demo-core 1.0", "Airflow 1.0")


def test_load(base):
    first, second, third = series.load(base)
    assert first.name == "0001-demo-Take-the-third-step-right.patch"
    assert first.slug == "demo-Take-the-third-step-right"
    assert first.subject == "[demo] Take the third step right"
    assert first.body == BODY.strip()
    assert first.message.startswith(f"{first.subject}\n\n{BODY}\nExit-condition: ")
    assert first.trailers == {"Exit-condition": ("upstream releases the same",), "Forwarded": ("no",)}
    assert first.trailer("Forwarded") == "no"
    assert first.trailer("Bug") is None
    assert first.files == ("airflow-core/src/airflow/first.py", "airflow-core/tests/unit/test_third.py")
    assert first.created == {"airflow-core/tests/unit/test_third.py"}
    assert second.created == {"airflow-core/tests/unit/test_seventh.py"}
    assert third.created == {*third.files} == {"airflow-core/docs/steps.rst"}


def test_series_file(base):
    listed = series.names(base)
    base.series_file.write_text(f"# a comment\n\n  {listed[1]}  # another\n#{listed[0]}\n\t\n{listed[2]}")
    assert series.names(base) == listed[1:]
    base.series_file.write_text("")
    assert series.load(base) == []
    base.series_file.write_text("0009-missing.patch")
    with pytest.raises(PatchsetError, match=r"0009-missing\.patch cannot be read: No such file"):
        series.load(base)


def test_trailers(repository):
    one, two, _ = repository.patches
    patch = edited(one, "Forwarded: no\n", "Forwarded: no\nBug: one\nBug: two\n  and more\n")
    assert patch.trailers["Bug"] == ("one", "two and more")
    assert patch.trailer("Bug") == "two and more"
    patch = edited(two, "Exit-condition: upstream releases the same\nForwarded: no\n", "")
    assert patch.trailers == {}
    assert patch.body == BODY.strip()


def test_long_and_foreign_subject(repository):
    subject = (
        "Say what a step is in words that everyone who is not a native speaker — naïve or not — understands"
    )
    path = repository.patches[0]
    folded = subject.replace("not — ", "not —\n ")
    assert edited(path, "[demo] Take the third step right", folded).subject == subject


def test_bytes_that_are_not_utf8(repository):
    path = repository.patches[0]
    path.write_bytes(path.read_bytes().replace(b"return 33", b"return '\xe9'"))
    assert len(series.parse(path).files) == 2


def test_diff_in_a_repository_above(repository, monkeypatch):
    """git apply would skip files outside the current directory of a repository and say nothing."""
    directory = repository.upstream / "airflow-core"
    path = repository.patches[1].rename(directory / "0002.patch")
    monkeypatch.chdir(directory / "docs")
    assert "airflow-core/src/airflow/second.py" in series.parse(path).files
    assert (directory / "src/airflow/second.py").read_text() == MODULE


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"nonsense\n", "is not a patch"),
        (b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "it has no subject"),
    ],
)
def test_not_a_patch(tmp_path, content, problem):
    path = tmp_path / "0001-x.patch"
    path.write_bytes(content)
    with pytest.raises(PatchsetError, match=problem):
        series.parse(path)
