# SPDX-License-Identifier: Apache-2.0
"""A clone of apache/airflow."""
