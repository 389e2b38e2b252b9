# SPDX-License-Identifier: Apache-2.0
"""From patch files to commits and back."""
