# SPDX-License-Identifier: Apache-2.0
"""Entry for ``python -I scripts/patchsetlib``: an isolated Python is not told where the modules are."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from patchsetlib.cli import main

sys.exit(main())
