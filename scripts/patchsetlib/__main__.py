# SPDX-License-Identifier: Apache-2.0
"""Entry for ``python -I scripts/patchsetlib``: an isolated Python is not told where the modules are."""

# ruff: noqa: E402 - the order is the point

import os
import sys

# A standard stream that the caller has closed (``>&-``): its number would go to the next file that is opened.
for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
        stream = open(os.devnull, mode, encoding="utf-8")
        os.set_inheritable(stream.fileno(), True)
        setattr(sys, name, stream)

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from patchsetlib.cli import main

sys.exit(main())
