# SPDX-License-Identifier: Apache-2.0
"""
Fault scenarios for LocalExecutor, run by the interpreter of an Airflow: stock, patched, or any other release.

By hand, with all names of ``python -m inside.main --list`` or some::

    PYTHONPATH=tests/faults PYTHON -m inside.main NAME...

A scenario is a function with ``@scenario`` that gets a ``Pool``, the public interface of an executor. It runs
in a process of its own, the scheduler. From outside to inside:

- ``main`` imports Airflow once and forks a warden for each scenario, some side by side
- ``warden`` forks the scheduler, takes its result, and kills all that is left, at the latest after a limit
- ``pool`` calls the executor, times each call, and compares what is reported with what ran
- ``tasks`` is what the workers run in place of Airflow's supervisor, and ``board`` is where they say so
"""
