# SPDX-License-Identifier: Apache-2.0
"""The small patch set, with and without patches: made once, and copied for each test."""

from __future__ import annotations

import pytest
import samplecommit
import sampleset
from sampleset import Repository


@pytest.fixture(scope="session")
def _pristine(tmp_path_factory) -> Repository:
    return sampleset.make(tmp_path_factory.mktemp("pristine"))


@pytest.fixture(scope="session")
def _with_series(_pristine, tmp_path_factory) -> Repository:
    return sampleset.make_with_series(_pristine, tmp_path_factory.mktemp("with-series"))


@pytest.fixture
def empty(_pristine, tmp_path) -> Repository:
    """A patch set whose series has no patches."""
    return sampleset.copy(_pristine, tmp_path)


@pytest.fixture
def repository(_with_series, tmp_path) -> Repository:
    """A patch set with three patches; the last one only creates a file."""
    return sampleset.copy(_with_series, tmp_path)


@pytest.fixture(scope="session")
def _with_commit_base(_pristine, tmp_path_factory) -> Repository:
    repository = sampleset.copy(_pristine, tmp_path_factory.mktemp("commit-base"))
    samplecommit.add_with_series(repository, repository.root.parent / "full")
    return repository


@pytest.fixture
def commit_base(_with_commit_base, tmp_path) -> Repository:
    """A patch set with a base that is a commit, and two patches for it."""
    repository = sampleset.copy(_with_commit_base, tmp_path)
    toml = repository.root / "airflow-core" / samplecommit.NAME / "base.toml"
    old, new = _with_commit_base.upstream.as_uri(), repository.upstream.as_uri()
    toml.write_text(toml.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return repository
