# SPDX-License-Identifier: Apache-2.0
"""``demo``: one run of the memory benchmark: a real Airflow, stock and patched, side by side."""

from __future__ import annotations

import argparse

from patchsetlib.measure.benchmarks import memory
from patchsetlib.verbs import bench

HELP = "run a real Dag on a real Airflow, stock and patched, and compare their memory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bench.add_options(parser, memory.BENCHMARK, repeats=1)


run = bench.run
