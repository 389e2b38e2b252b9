# SPDX-License-Identifier: Apache-2.0
"""``bench soak`` on the real thing, for a short time: nothing is lost while processes die and restart."""

from __future__ import annotations

import pytest

from patchsetlib.measure import runner
from patchsetlib.measure.benchmarks.soak import BENCHMARK
from patchsetlib.measure.subjects import Subject
from patchsetlib.patches import base as bases

pytestmark = [pytest.mark.network, pytest.mark.base(bases.default().name), pytest.mark.nightly]


def test_nothing_is_lost_while_processes_die(patched: Subject, tmp_path):
    (record,) = runner.run(BENCHMARK, [patched], {"minutes": 1, "parallelism": 8, "seed": 2}, 1, tmp_path)

    assert "error" not in record
    faults = [fault for each in record["rounds"] for _, fault in each["faults"]]
    assert "api-server restarted" in faults
    assert {"worker idle killed", "worker busy killed"} & {*faults}
    assert [each["lost"] for each in record["rounds"] if each["lost"]] == []
    assert record["twice"] == []
    assert all("pss" in each for each in record["rounds"])
