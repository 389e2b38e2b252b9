# SPDX-License-Identifier: Apache-2.0
"""Starts programs: git, uv, processes and their guard, scratch directories, terminal output."""
