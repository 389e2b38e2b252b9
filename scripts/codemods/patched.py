# SPDX-License-Identifier: Apache-2.0
"""
Patches of ``Job.executors`` and ``Job.executor`` become patches of what the runner loads its executors with.

The property was asked at each use, the loader is asked once, when the runner is made: only patches that
are there by then can be moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import libcst as cst

from codemods import edits as edit
from codemods.edits import Edits
from codemods.flow import Facts, Patch, dotted, last_name, text_of

LOADER = "airflow.executors.executor_loader.ExecutorLoader.init_executors"
_OLD_LOADER = "airflow.jobs.job.ExecutorLoader"
_NEW_LOADER = "airflow.jobs.scheduler_job_runner.ExecutorLoader"
_BY_HAND = f"patch {LOADER} with a return_value"

Report = Callable[[cst.CSTNode, str, str], None]


class _Unclear(Exception):
    """It is not certain what the patch is to become."""


def plan(
    facts: Facts, edits: Edits, counts: Counter[str], unused: set[tuple[str, str]], report: Report
) -> None:
    """Add the changes of all patches of a module, and report those that are not certain."""
    for patch in facts.patches.values():
        path = text_of(patch.node.args[0].value)
        if path is not None and path.startswith(_OLD_LOADER):
            _rename(patch.node, _NEW_LOADER + path[len(_OLD_LOADER) :], edits)
            counts["patch"] += 1
            continue
        name = path or f"Job.{text_of(patch.node.args[1].value)}"
        try:
            new = _moved(patch, name.endswith(".executor"), facts, edits)
        except _Unclear as e:
            report(patch.node, f"{name[name.rindex('Job.') :]} is patched, {e}", _BY_HAND)
            continue
        edits.add(patch.node, lambda node, new=new: new)  # type: ignore[misc]
        counts["patch"] += 1
        unused |= _references(patch.node, facts) - _references(new, facts)


def _rename(call: cst.Call, path: str, edits: Edits) -> None:
    edits.add(call.args[0].value, lambda node: _string(node, path))


def _string(node: cst.CSTNode, text: str) -> cst.SimpleString:
    quote = node.quote if isinstance(node, cst.SimpleString) else '"'
    return cst.SimpleString(f"{quote}{text}{quote}")


def _references(node: cst.CSTNode, facts: Facts) -> set[tuple[str, str]]:
    """Return module and name of all that the node uses by an imported name."""
    found: set[tuple[str, str]] = set()

    class Names(cst.CSTVisitor):
        def visit_Name(self, name: cst.Name) -> None:
            if (ref := facts.refs.get(name)) is not None:
                module, _, last = ref.name.rpartition(".")
                found.add((module, last))

    node.visit(Names())
    return found


def _moved(patch: Patch, single: bool, facts: Facts, edits: Edits) -> cst.Call:
    """
    Return the call that patches the loader.

    :param single: whether it is about ``Job.executor``, which is one and not a list
    :raises _Unclear: if it is not certain
    """
    call = patch.node
    if patch.after_runner:
        raise _Unclear("after the SchedulerJobRunner has loaded its executors")
    rest = list(call.args[2 if patch.on_class else 1 :])
    if any(a.star for a in call.args):
        raise _Unclear("with arguments that are not known")
    if single and _both(patch, facts):
        raise _Unclear("besides Job.executors, where that alone is enough now")
    if last_name(call.func) == "setattr":
        return _setattr(patch, rest, single)
    func = call.func
    if patch.on_class:
        if not (isinstance(func, cst.Attribute) and func.attr.value == "object"):
            raise _Unclear("in a way that is not known")
        func = func.value
    if last_name(func) != "patch":
        raise _Unclear("in a way that is not known")
    value, others = _replacement(rest, patch)
    if value is None and single:
        _wrap_assignments(patch, edits)
    made = call.with_changes(func=func, args=_target(call, patch))
    if value is not None:
        made = edit.with_argument(made, "return_value", _listed(value) if single else value)
    for argument in others:
        assert argument.keyword is not None
        made = edit.with_argument(made, argument.keyword.value, argument.value)
    if not made.args[1:]:
        made = made.with_changes(whitespace_before_args=cst.SimpleWhitespace(""))
    return made


def _both(patch: Patch, facts: Facts) -> bool:
    return any(
        other.place.function is patch.place.function
        and (path := text_of(other.node.args[0].value)) is not None
        and path.endswith(".Job.executors")
        for other in facts.patches.values()
    )


def _target(call: cst.Call, patch: Patch) -> tuple[cst.Arg, ...]:
    old = call.args[1].value if patch.on_class else call.args[0].value
    return (cst.Arg(_string(old, LOADER)),)


def _listed(value: cst.BaseExpression) -> cst.List:
    return cst.List([cst.Element(value)])


def _replacement(rest: list[cst.Arg], patch: Patch) -> tuple[cst.BaseExpression | None, list[cst.Arg]]:
    """Return what the property gives, if that is said in the call, and the arguments to keep."""
    new = value = None
    callable_ = False
    for index, argument in enumerate(rest):
        keyword = argument.keyword.value if argument.keyword else ("new" if index == 0 else "")
        if keyword == "new":
            new = argument.value
        elif keyword == "new_callable" and last_name(argument.value) == "PropertyMock":
            callable_ = True
        elif keyword == "return_value":
            value = argument.value
        else:
            raise _Unclear(f"with {keyword or 'an argument'} that may not fit a function")
    if new is not None:
        if patch.form == "decorator":
            raise _Unclear("with something that a decorator does not pass on to the function")
        value = _given(new)
    elif not callable_:
        raise _Unclear("by something that is not a PropertyMock")
    return value, []


def _given(new: cst.BaseExpression) -> cst.BaseExpression:
    """Return what a property gives that is this object."""
    if isinstance(new, cst.List | cst.Tuple):
        return new
    if isinstance(new, cst.Call) and last_name(new.func) == "PropertyMock":
        if len(new.args) == 1 and new.args[0].keyword and new.args[0].keyword.value == "return_value":
            return new.args[0].value
    raise _Unclear("by something of which it is not known what it gives")


def _wrap_assignments(patch: Patch, edits: Edits) -> None:
    """Make lists of what the mock of ``Job.executor`` returns, where that is said after it was made."""
    function, target = patch.place.function, patch.target
    if target is None:
        raise _Unclear("and what it gives is not said here")
    values: list[cst.BaseExpression] = []
    uses = 0

    class Uses(cst.CSTVisitor):
        def visit_Name(self, node: cst.Name) -> None:
            nonlocal uses
            uses += node.value == target.value

        def visit_Assign(self, node: cst.Assign) -> None:
            if len(node.targets) == 1 and dotted(node.targets[0].target) == f"{target.value}.return_value":
                values.append(node.value)

    function.visit(Uses())
    if not values or uses != len(values) + 1:
        raise _Unclear("and its mock is used for more than its return_value")
    for value in values:
        edits.add(value, lambda node: _listed(node))  # type: ignore[arg-type]


def _setattr(patch: Patch, rest: list[cst.Arg], single: bool) -> cst.Call:
    """Return the call of monkeypatch.setattr for the loader."""
    call = patch.node
    if not rest or (rest[0].keyword and rest[0].keyword.value != "value"):
        raise _Unclear("with arguments that are not known")
    value = _property_value(rest[0].value)
    body = _listed(value) if single else value
    function = cst.Lambda(params=cst.Parameters(), body=body)
    (target,) = _target(call, patch)
    kept = [target.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))]
    first = rest[0].with_changes(value=function, keyword=None, equal=cst.MaybeSentinel.DEFAULT)
    return call.with_changes(args=(*kept, first, *rest[1:]))


def _property_value(node: cst.BaseExpression) -> cst.BaseExpression:
    """Return what the property gives, if evaluating that once more gives the same."""
    if isinstance(node, cst.Call) and last_name(node.func) in ("property", "cached_property"):
        getter = node.args[0].value if len(node.args) == 1 else None
        if not isinstance(getter, cst.Lambda) or len(getter.params.params) != 1:
            raise _Unclear("by a property of which it is not known what it gives")
        own = getter.params.params[0].name.value
        value = getter.body
        if own in _names(value):
            raise _Unclear("by a property that asks the Job")
    else:
        value = _given(node)
    elements = [e.value for e in value.elements] if isinstance(value, cst.List | cst.Tuple) else [value]
    if any(dotted(one) is None for one in elements):
        raise _Unclear("by something that would be made anew for each SchedulerJobRunner")
    return value


def _names(node: cst.CSTNode) -> set[str]:
    found: set[str] = set()

    class Names(cst.CSTVisitor):
        def visit_Name(self, name: cst.Name) -> None:
            found.add(name.value)

    node.visit(Names())
    return found
