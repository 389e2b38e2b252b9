# SPDX-License-Identifier: Apache-2.0
"""
An Airflow on disk.

``constraints.txt`` of a base, by uv, becomes an environment (``environment``); a source tree with the series and
the published wheels become patched wheels (``wheel``), which go on top. What comes out is the path of a Python.
"""
