# SPDX-License-Identifier: Apache-2.0
"""
An Airflow on disk.

uv makes an environment of a base's ``constraints.txt`` (``environment``). The published wheels and the
series make patched wheels (``wheel``), which go on top. The result is the path of a Python. ``describe`` and
``settings`` tell of any installed Airflow what its files and its options are; ``inplace`` patches it where it
is, through ``change``.
"""
