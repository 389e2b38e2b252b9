# SPDX-License-Identifier: Apache-2.0
"""
What the tool says while it works: plain lines on stderr.

Results go to stdout, so that other programs can read them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Say nothing but warnings and errors from here on."""
    global _quiet
    _quiet = quiet


def shows_progress() -> bool:
    """Return whether somebody watches who wants to see how far a download is."""
    return not _quiet and sys.stderr.isatty()


def info(line: str) -> None:
    """Say one line, unless quiet."""
    if not _quiet:
        _say(line)


def warn(line: str) -> None:
    """Say one line that must be seen even when quiet."""
    _say(f"warning: {line}")


def error(line: str) -> None:
    """Say the one line that explains why the command fails."""
    _say(f"patchset: {line}")


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads it any more; that does not make the work fail
        print(line, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a long step before it runs, and say how many seconds it took."""
    info(f"{what} ...")
    started = time.monotonic()
    yield
    info(f"{what}: done in {time.monotonic() - started:.1f} s")
