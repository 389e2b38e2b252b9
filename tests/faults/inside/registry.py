# SPDX-License-Identifier: Apache-2.0
"""All scenarios by name. Needs nothing but the standard library, as pytest collects them without Airflow."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

MODULES = ("deaths", "schedulers", "load", "results", "starts", "endings", "leaks", "locks", "kinds")


@dataclass(frozen=True)
class Scenario:
    """One scenario: a function, and its case if it has several."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    parallelism: int
    nightly: bool
    start_method: str = "fork"


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *cases: Any, parallelism: int = 4, forkserver: bool = False, nightly: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """
    Register a function as a scenario, or as one for each of ``cases``, which is its second argument.

    :param parallelism: number of workers of its pool
    :param forkserver: it makes a difference that workers are children of a fork server: register it twice
    :param nightly: takes long for what it says
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for case in cases or (None,):
            name = function.__name__ if case is None else f"{function.__name__}[{case}]"
            arguments = () if case is None else (case,)
            forked = SCENARIOS[name] = Scenario(name, function, arguments, parallelism, nightly)
            if forkserver:
                name = f"forkserver {name}"
                SCENARIOS[name] = replace(forked, name=name, start_method="forkserver")
        return function

    return register


def load() -> dict[str, Scenario]:
    """Return all scenarios by name."""
    for name in MODULES:
        importlib.import_module(f"inside.{name}")
    return SCENARIOS
