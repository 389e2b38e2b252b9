# SPDX-License-Identifier: Apache-2.0
"""Exceptions, other ends of a task, and results that are hard to hand from one process to another."""

from __future__ import annotations

import os
import threading

HUGE = 2_000_000


def _raise(error: BaseException):
    raise error


class Unpicklable(Exception):
    """Holds what cannot be pickled."""

    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class BadReduce(Exception):
    """Raises when it is pickled, and nothing that derives from PickleError."""

    def __reduce__(self):
        raise RuntimeError("reduce")


class Endless(Exception):
    """Nested so deep that pickling it exceeds the recursion limit."""

    def __init__(self):
        nested: list = []
        for _ in range(100_000):
            nested = [nested]
        super().__init__(nested)


class TwoArguments(Exception):
    """The usual mistake: ``args`` is not what ``__init__`` needs, so unpickling raises TypeError."""

    def __init__(self, code: int, text: str):
        super().__init__(f"{code}: {text}")


class RaisesOnLoad(Exception):
    """Unpickling raises what ``error`` makes."""

    def __init__(self, error: type[BaseException]):
        super().__init__("raises on load")
        self.error = error

    def __reduce__(self):
        return _raise, (self.error("while unpickling"),)


class NoText(Exception):
    """Raises when somebody wants to show it, as a log does."""

    def __str__(self):
        raise RuntimeError("str")

    __repr__ = __str__


EXCEPTIONS = {
    "plain": lambda: ValueError("plain"),
    "huge": lambda: ValueError("x" * HUGE),
    "large": lambda: ValueError("x" * 200_000),
    "unpicklable": Unpicklable,
    "bad_reduce": BadReduce,
    "endless": Endless,
    "two_arguments": lambda: TwoArguments(1, "two"),
    "exit_on_load": lambda: RaisesOnLoad(SystemExit),
    "end_of_file_on_load": lambda: RaisesOnLoad(EOFError),
    "no_text": NoText,
    "local_class": lambda: type("Local", (Exception,), {})("local"),
    "system_exit": lambda: SystemExit(3),
    "keyboard_interrupt": KeyboardInterrupt,
    "base_exception": lambda: BaseException("base"),
    "broken_pipe": lambda: BrokenPipeError(32, "broken"),
    "exit": lambda: os._exit(7),
}
VALUES = {
    "unpicklable": threading.Lock,
    "huge": lambda: b"x" * HUGE,
    "local": lambda: lambda: None,
}
