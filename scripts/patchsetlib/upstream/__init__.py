# SPDX-License-Identifier: Apache-2.0
"""
A clone of apache/airflow: what only a full checkout can show.

``trees`` makes commits of the patches in a clone, in worktrees
below ``work/``; the clone's branches and what it has checked out stay as they are. On such a tree
``unittests`` runs upstream's own unit tests, base against patched, and ``staticchecks`` its hooks and mypy,
in the Python environment that ``environment`` installs. ``pullrequest`` puts one patch and those that it
depends on onto upstream's main as a branch, and ``description`` writes the text of the pull request.
"""
