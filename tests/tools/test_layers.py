# SPDX-License-Identifier: Apache-2.0
"""The packages of the tools import each other in one direction only."""

from __future__ import annotations

from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]


def test_contract_in_pyproject_holds():
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
