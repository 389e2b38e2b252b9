# SPDX-License-Identifier: Apache-2.0
"""
Starts programs. It knows nothing of patches or of Airflow.

- ``paths``: the repository and ``work/``; ``staging``: directories that appear when they are complete.
- ``git`` and ``uv`` run those, apart from the user's settings or with those that say how to reach a network.
- ``processes`` starts what starts Airflow, each command under a ``guard`` that ends all of its descendants.
- ``ui`` says on stderr what happens; ``errors`` are what the user can do something about.
"""
