# SPDX-License-Identifier: Apache-2.0
"""Waiting for what a real Airflow does, on however busy a machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from patchsetlib.measure.deployment import ApiError

T = TypeVar("T")

# Seconds; nothing takes so long.
LONG = 300


def eventually(what: str, look: Callable[[], T | None]) -> T:
    """Return what ``look`` returns as soon as that is true; errors of the API are no answer."""
    deadline = time.monotonic() + LONG
    while True:
        with suppress(ApiError):
            if result := look():
                return result
        assert time.monotonic() < deadline, f"after {LONG} s: not {what}"
        time.sleep(0.1)
