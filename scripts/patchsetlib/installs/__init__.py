# SPDX-License-Identifier: Apache-2.0
"""
An Airflow on disk.

uv makes an environment of a base's ``constraints.txt`` (``environment``). Of a source tree with the series, and
of the published wheels, come patched wheels (``wheel``), which go on top. The result is the path of a Python.
"""
