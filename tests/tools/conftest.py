# SPDX-License-Identifier: Apache-2.0
"""The small patch set, with and without patches: made once, and copied for each test."""

from __future__ import annotations

import pytest
import samplecommit
import sampleset
from sampleset import Repository

from patchsetlib.patches import base as bases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of an ``airflow_release`` on the default, nightly on each; of ``every_release``, on each."""
    for name in {"airflow_release", "every_release"} & {*metafunc.fixturenames}:
        values = []
        for base in map(bases.load, bases.all_bases()):
            if base.released and not base.is_provider:
                is_nightly = name == "airflow_release" and not base.is_default
                marks = [pytest.mark.base(base.name), *([pytest.mark.nightly] if is_nightly else [])]
                values.append(pytest.param(base, id=base.name, marks=marks))
        metafunc.parametrize(name, values)


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
    old, new = _with_commit_base.upstream.as_uri(), repository.upstream.as_uri()
    sampleset.edit(repository.root / "airflow-core" / samplecommit.NAME / "base.toml", (old, new))
    return repository
