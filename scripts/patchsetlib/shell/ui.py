# SPDX-License-Identifier: Apache-2.0
"""
What the tool says while it works.

Results go to stdout, so that other programs can read them; everything here goes to stderr. On a
terminal a running step has a spinner and its time; elsewhere each step is one plain line.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_console = Console(stderr=True, highlight=False, soft_wrap=True)
_quiet = False
_animated = False


def set_quiet(quiet: bool) -> None:
    """Say nothing but errors from here on."""
    global _quiet
    _quiet = quiet


def info(line: str) -> None:
    """Say one line, unless quiet."""
    if not _quiet:
        _console.print(line, markup=False)


def warn(line: str) -> None:
    """Say one line that must be seen even when quiet."""
    _console.print(f"warning: {line}", markup=False, style="yellow")


def error(line: str) -> None:
    """Say the one line that explains why the command fails."""
    _console.print(f"patchset: {line}", markup=False, style="bold red")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a long step before it runs, and say how many seconds it took."""
    if _quiet:
        yield
        return
    global _animated
    started = time.monotonic()
    # One within another is a plain line: there can be only one spinner.
    if _console.is_terminal and not _animated:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=_console, transient=True) as progress:
            progress.add_task(what, total=None)
            _animated = True
            try:
                yield
            finally:
                _animated = False
    else:
        info(f"{what} ...")
        yield
    info(f"{what}: done in {time.monotonic() - started:.1f} s")
