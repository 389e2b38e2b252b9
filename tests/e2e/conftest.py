# SPDX-License-Identifier: Apache-2.0
"""What the tests on a real Airflow share."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchsetlib.installs import environment
from patchsetlib.measure import subjects
from patchsetlib.measure.subjects import Subject
from patchsetlib.patches import base as bases


@pytest.fixture(scope="session")
def patched() -> Subject:
    python = environment.python(bases.default(), patched=True)
    return Subject("patched", python, subjects.describe(python))


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A directory in which a migrated database is kept for all tests."""
    return tmp_path_factory.mktemp("deployments")
