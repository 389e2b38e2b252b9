# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: each module describes one as ``BENCHMARK``."""

from __future__ import annotations

from patchsetlib.measure.benchmarks import dispatch, edge, gc, growth, imports, memory, soak, throughput

_MODULES = (memory, growth, throughput, dispatch, gc, imports, soak, edge)
BENCHMARKS = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}
