# SPDX-License-Identifier: Apache-2.0
"""
A running Airflow, measured.

``benchmarks`` describes what to measure, and ``runner`` does it for each of the ``subjects`` (interpreters
that have an Airflow) in turn: on a ``deployment`` with a ``database`` of its own, which runs a ``workload``
while the ``memory`` of its processes is sampled; or by a probe, a script that runs inside the measured
Airflow alone. Each run gives a record, plain data. ``figures`` makes rows of medians from the records, and
``report`` writes table, chart and JSON.

For ``doctor``, ``running`` looks at a scheduler that somebody else runs, from outside, and ``diagnosis``
judges what is there.
"""
