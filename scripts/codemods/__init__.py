# SPDX-License-Identifier: Apache-2.0
"""Programs that move code of others to the interfaces as the patches leave them."""
