# SPDX-License-Identifier: Apache-2.0
"""What is found in a module before it is decided what to change."""

from __future__ import annotations

from dataclasses import dataclass, field

import libcst as cst

from codemods.values import Env, Job, Place, Ref, Runner, Value


@dataclass(eq=False)
class Use:
    """An attribute ``executor`` or ``executors`` of something."""

    node: cst.Attribute
    base: Value
    context: str
    """``load``, ``store``, ``delete``, or ``change`` for a list that is changed in place."""
    runners: list[tuple[str, Value]]
    """Names that stand for a runner at that point."""
    via: cst.BaseExpression | None
    """The runner, in ``runner.job.executor``."""
    place: Place
    env: Env


@dataclass(eq=False)
class Patch:
    """A call that may patch ``Job.executors``."""

    node: cst.Call
    form: str
    """``decorator``, ``with``, or ``call``."""
    target: cst.Name | None
    """The name after ``as``."""
    place: Place
    after_runner: bool
    """Whether this function has made a runner before."""
    on_class: bool
    """Whether the first argument is the class itself, as in ``patch.object(Job, ...)``."""


@dataclass(eq=False)
class Late:
    """An assignment to ``return_value`` that comes after a runner was made."""

    function: cst.CSTNode
    mock: str | None
    """The name of the mock."""
    from_fixture: bool
    """Whether the mock is a fixture of the same file which patches what a runner loads."""


@dataclass(eq=False)
class Facts:
    """What was found in a module."""

    jobs: dict[cst.Call, Job] = field(default_factory=dict)
    runners: dict[cst.Call, Runner] = field(default_factory=dict)
    uses: dict[cst.Attribute, Use] = field(default_factory=dict)
    patches: dict[cst.Call, Patch] = field(default_factory=dict)
    named: dict[cst.Call, Value] = field(default_factory=dict)
    """Calls that pass a Job, or the class, and then the name of the attribute."""
    strings: dict[cst.CSTNode, str] = field(default_factory=dict)
    """Strings that name ``Job.executors`` and are not the target of a patch."""
    loader_patches: set[cst.CSTNode] = field(default_factory=set)
    """Functions in which ExecutorLoader.init_executors is patched already."""
    late: dict[cst.Attribute, Late] = field(default_factory=dict)
    """Where a mock is told what to return after a runner was made in the same function."""
    suspects: dict[cst.Call, str] = field(default_factory=dict)
    """Calls that may make a Job with an executor, and why that is not known."""
    imports: dict[cst.CSTNode, str] = field(default_factory=dict)
    """Imports of what ``airflow.jobs.job`` no longer has."""
    refs: dict[cst.Name, Ref] = field(default_factory=dict)
    """Names that were imported."""
    modules: set[str] = field(default_factory=set)
    """All that is imported."""
    statements: dict[cst.Call, cst.CSTNode | None] = field(default_factory=dict)
