# SPDX-License-Identifier: Apache-2.0
"""An Airflow on disk."""
