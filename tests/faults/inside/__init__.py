# SPDX-License-Identifier: Apache-2.0
"""What runs inside an Airflow interpreter; started by ``driver``. Knows nothing of the tools."""
