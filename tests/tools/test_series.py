# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from sampleset import BODY, NOT_CARRIED

import patchsetlib.patches.base
from patchsetlib.patches import series
from patchsetlib.shell.errors import PatchsetError


@pytest.fixture
def base(repository, monkeypatch):
    monkeypatch.setattr(patchsetlib.patches.base, "ROOT", repository.root)
    return patchsetlib.patches.base.load("1.0")


def test_load(base):
    loaded = series.load(base)
    assert loaded.base is base
    first, second, third = loaded.patches
    assert first.name == "0001-demo-Take-the-third-step-right.patch"
    assert first.slug == "demo-Take-the-third-step-right"
    assert first.subject == "[demo] Take the third step right"
    assert first.body == BODY.strip()
    assert first.trailers == {
        "Exit-condition": ("upstream releases the same",),
        "Forwarded": ("no",),
    }
    assert first.trailer("Forwarded") == "no"
    assert first.trailer("Bug") is None
    assert first.files == ("airflow-core/src/airflow/first.py", "airflow-core/tests/unit/test_third.py")
    assert first.created == {"airflow-core/tests/unit/test_third.py"}
    assert first.author == "Airflow LocalExecutor patch set <patchset@invalid>"
    assert second.created == {"airflow-core/tests/unit/test_seventh.py"}
    assert third.files == ("airflow-core/docs/guide.rst",)
    assert third.created == frozenset()


def test_series_file(base):
    listed = series.names(base)
    assert len(listed) == 3
    base.series_file.write_text(f"# a comment\n\n  {listed[1]}  # another\n#{listed[0]}\n\t\n{listed[2]}")
    assert series.names(base) == listed[1:]
    base.series_file.write_text("")
    assert series.load(base).patches == []
    base.series_file.unlink()
    with pytest.raises(PatchsetError, match="series cannot be read"):
        series.names(base)


def test_listed_patch_that_is_missing(base):
    name = series.names(base)[1]
    (base.directory / name).unlink()
    with pytest.raises(PatchsetError, match=rf"{name} cannot be read: No such file"):
        series.load(base)


def test_folded_and_repeated_trailers(repository):
    path = repository.patches[0]
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("Forwarded: no\n", "Forwarded: no\nBug: one\nBug: two\n  and more\n"), encoding="utf-8"
    )
    patch = series.parse(path)
    assert patch.trailers["Bug"] == ("one", "two and more")
    assert patch.trailer("Bug") == "two and more"


def test_message_without_trailers(repository):
    path = repository.patches[0]
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("Exit-condition: upstream releases the same\nForwarded: no\n", ""), encoding="utf-8"
    )
    patch = series.parse(path)
    assert patch.trailers == {}
    assert patch.body == BODY.strip()


def test_long_and_foreign_subject(repository):
    subject = (
        "Say what a step is in words that everyone who is not a native speaker — naïve or not — understands"
    )
    path = repository.patches[0]
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            "[demo] Take the third step right", subject.replace("not — ", "not —\n ")
        ),
        encoding="utf-8",
    )
    assert series.parse(path).subject == subject
    assert series.subject_of(path.read_text(encoding="utf-8")) == subject


def test_bytes_that_are_not_utf8(repository):
    path = repository.patches[0]
    path.write_bytes(path.read_bytes().replace(b"return 33", b"return '\xe9'"))
    assert len(series.parse(path).files) == 2


def test_diff_in_a_repository_above(repository, monkeypatch):
    """git apply would skip files outside the current directory of a repository and say nothing."""
    directory = repository.upstream / "airflow-core"
    path = repository.patches[1].rename(directory / "0002.patch")
    monkeypatch.chdir(directory / "docs")
    assert "airflow-core/docs/guide.rst" in series.parse(path).files
    assert (directory / "docs/guide.rst").read_text() == NOT_CARRIED["docs/guide.rst"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a patch"),
        (b"nonsense\n", "is not a patch"),
        (b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "it has no subject"),
    ],
)
def test_not_a_patch(tmp_path, content, problem):
    path = tmp_path / "0001-x.patch"
    path.write_bytes(content)
    with pytest.raises(PatchsetError, match=problem):
        series.parse(path)


def test_empty_commit(repository):
    """Not an error here, so that it can be reported as what it is."""
    path = repository.patches[2]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.partition("---\n")[0], encoding="utf-8")
    assert series.parse(path).files == ()


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("0001-a-b.patch", "a-b"),
        ("0001-3-steps.patch", "3-steps"),
        ("x.patch", "x"),
        ("0001-v1.2.patch", "v1.2"),
    ],
)
def test_slug(name, slug):
    assert series.slug(name) == slug
