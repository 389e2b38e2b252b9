# SPDX-License-Identifier: Apache-2.0
"""``scripts/probes/imports.py`` counts memory to the package that takes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "probes"
MIB = 2**20
# Anonymous memory that is written to counts; that of a bytearray's zeros does not.
TAKE = "taken = b'x' * ({} * 2**20)\n"
WATCH = """\
import json, sys
sys.path[:0] = [{bench!r}, {packages!r}]
import imports
accounts = imports.Accounts()
with accounts.watching():
    import large
    import large.part
print(json.dumps([accounts.bytes, accounts.modules, accounts.importers]))
"""
FORK = """\
import json, sys
sys.path.insert(0, {bench!r})
import imports
def child():
    before = imports.uss()
    taken = b'x' * (20 * 2**20)
    return {{"grown": imports.uss() - before}}
print(json.dumps(imports.in_fork(child)))
"""


def run(program: str):
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_is_counted_to_the_package_and_not_to_what_imports_it(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "__init__.py").write_text(TAKE.format(20) + "import small\n")
    (tmp_path / "large" / "part.py").write_text(TAKE.format(10))
    (tmp_path / "small.py").write_text(TAKE.format(5))

    size, modules, importers = run(WATCH.format(bench=str(BENCH), packages=str(tmp_path)))

    assert 30 * MIB <= size["large"] < 32 * MIB
    assert 5 * MIB <= size["small"] < 7 * MIB
    assert modules["large"] == 2
    assert (importers["large"], importers["small"]) == ("python", "large")


def test_fork_reports_what_it_has_taken_for_itself():
    assert 20 * MIB <= run(FORK.format(bench=str(BENCH)))["grown"] < 22 * MIB
