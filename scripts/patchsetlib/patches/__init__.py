# SPDX-License-Identifier: Apache-2.0
"""
From patch files to commits and back.

``base`` reads a base's ``base.toml`` and ``series`` the patches that the file ``series`` lists.
``source`` makes the tree that they apply to, from the sdists that ``artifacts`` downloads, or ``clone`` from
a clone of upstream's repository, fetched if the user has none; ``git am`` makes the commits. ``export``
writes commits as patch files with ``git format-patch``. ``check`` finds what is wrong with the files, and
``refresh`` moves a series to another commit with ``git rebase``.
"""
