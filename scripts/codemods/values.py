# SPDX-License-Identifier: Apache-2.0
"""What an expression can stand for, as far as executors are concerned, and what a name stands for where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import libcst as cst

JOB = "airflow.jobs.job.Job"
RUNNER = "airflow.jobs.scheduler_job_runner.SchedulerJobRunner"


class Value:
    """What an expression evaluates to."""


@dataclass(frozen=True)
class Ref(Value):
    """Something imported, by its full name."""

    name: str


@dataclass(frozen=True)
class Derived(Value):
    """A class of the same file that has JOB or RUNNER as a base but makes its instances in its own way."""

    base: str


@dataclass(frozen=True)
class Foreign(Value):
    """A class of the same file that is neither of the two, nor made from them."""


@dataclass(eq=False)
class Place:
    """Where in the program something is evaluated."""

    function: cst.CSTNode
    """The function, or the module."""
    statement: cst.CSTNode | None
    position: tuple[tuple[cst.CSTNode, int], ...]
    """The blocks around it, each with the index of the statement in it."""
    loops: tuple[cst.CSTNode, ...]
    contexts: tuple[cst.CSTNode, ...]
    """The ``with`` statements around it."""
    order: int


@dataclass(eq=False)
class Job(Value):
    """A Job; ``call`` is where it was made, if that is in this file."""

    call: cst.Call | None = None
    place: Place | None = None
    executor: int | None = None
    """Which argument of the call is the executor."""
    versions: dict[str, frozenset[int]] = field(default_factory=dict)
    """The bindings of the names in that argument."""
    patched: bool = False
    """Whether Job.executors was patched then, so that the argument had no effect."""
    fixtures: frozenset[str] = frozenset()
    """The fixtures that have patched it, where the function has them as parameters."""


@dataclass(eq=False)
class Runner(Value):
    """A SchedulerJobRunner; ``call`` is where it was made, if that is in this file."""

    job: Value
    call: cst.Call | None = None
    place: Place | None = None
    versions: dict[str, frozenset[int]] = field(default_factory=dict)


@dataclass(eq=False)
class Other(Value):
    """Anything else, or not known."""

    may_be_job: bool = False
    foreign: bool = False
    """Whether it is certainly no Job, whatever its name: it was made by another class of the same file."""


@dataclass(frozen=True)
class Either(Value):
    """One of several, depending on the way taken through the program."""

    of: frozenset[Value]


def alternatives(value: Value | None) -> frozenset[Value]:
    """Return all that the value can be."""
    if value is None:
        return frozenset()
    return value.of if isinstance(value, Either) else frozenset((value,))


def either(values: Iterable[Value | None]) -> Value | None:
    """Return the value that is one of these; ``None`` stands for nothing known of."""
    found = frozenset(one for value in values for one in alternatives(value))
    if len(found) <= 1:
        return next(iter(found), None)
    return Either(found)


def is_class(value: Value | None, name: str) -> bool:
    """
    Return whether the value is the class of this full name, or the same class imported from elsewhere.

    Airflow's own modules import Job and SchedulerJobRunner by name, so that they can be had from these too.
    """
    last = name.rpartition(".")[2]
    return any(
        isinstance(one, Ref)
        and (
            one.name == name
            or (
                one.name.startswith("airflow.")
                and not one.name.startswith("airflow.providers.")
                and one.name.rpartition(".")[2] == last
            )
        )
        for one in alternatives(value)
    )


def _prefixes(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


class Env:
    """What the names ``a`` and ``a.b.c`` stand for at one point of the program."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.versions: dict[str, frozenset[int]] = {}
        self.owners: set[str] = set()
        """Names of which attributes may be known."""

    def copy(self) -> Env:
        made = Env()
        made.values, made.versions, made.owners = self.values.copy(), self.versions.copy(), self.owners.copy()
        return made

    def know(self, name: str, value: Value) -> None:
        """Say what a name stands for that is bound elsewhere."""
        self.values[name] = value
        self.owners |= _prefixes(name)

    def bind(self, name: str, value: Value | None, node: cst.CSTNode) -> None:
        """Let the name stand for something else from here on; ``node`` tells this binding from others."""
        if name in self.owners:
            for known in [known for known in self.values if known.startswith(name + ".")]:
                del self.values[known]
        self.owners |= _prefixes(name)
        if value is None:
            self.values.pop(name, None)
        else:
            self.values[name] = value
        self.versions[name] = frozenset((id(node),))

    def join(self, other: Env) -> Env:
        """Return what is known where two ways through the program meet."""
        made = self.copy()
        made.owners |= other.owners
        for name, value in other.values.items():
            own = self.values.get(name)
            if own is not value:
                made.values[name] = either((own, value)) or value
        for name, bindings in other.versions.items():
            made.versions[name] = self.versions.get(name, bindings) | bindings
        return made

    def same(self, other: Env) -> bool:
        return self.values == other.values and self.versions == other.versions

    def versions_of(self, names: Iterable[str]) -> dict[str, frozenset[int]]:
        """Return the bindings of these names and of what they are attributes of."""
        found = {}
        for name in names:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                prefix = ".".join(parts[:end])
                found[prefix] = self.versions.get(prefix, frozenset())
        return found
