# SPDX-License-Identifier: Apache-2.0
"""Entry for ``python -I scripts/patchsetlib``: an isolated Python takes no module path from its environment."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from patchsetlib.cli import main  # noqa: E402

sys.exit(main())
