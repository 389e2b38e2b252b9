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
from codemods.facts import Facts, Patch
from codemods.syntax import dotted, last_name, text_of

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
            report(patch.node, f"{name[name.rindex('Job.') :]} is patched {e}", _BY_HAND)
            continue
        edits.add(patch.node, lambda node, new=new: new)  # type: ignore[misc]
        counts["patch"] += 1
        unused |= _references(patch.node, facts) - _references(new, facts)
    for target, late in facts.late.items():
        if late.from_fixture:
            report(
                target,
                "what a patch gives is set after the SchedulerJobRunner has loaded its executors",
                "set it before",
            )


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
    if (mock := _mock(patch, facts)) is not None:
        _check_uses(patch, mock, facts)
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
    return _patch(call.with_changes(func=func), patch, single, edits)


def _patch(call: cst.Call, patch: Patch, single: bool, edits: Edits) -> cst.Call:
    """Return the call of ``patch`` with the arguments that fit a function."""
    made = edit.without_argument(call, 0) if patch.on_class else call
    made = _with(made, 0, value=_string(made.args[0].value, LOADER))
    property_mock = said = False
    for index in reversed(range(1, len(made.args))):
        argument = made.args[index]
        keyword = argument.keyword.value if argument.keyword else "new" if index == 1 else ""
        if keyword == "new_callable" and last_name(argument.value) == "PropertyMock":
            made, property_mock = edit.without_argument(made, index), True
        elif keyword in ("new", "return_value"):
            if keyword == "new" and patch.form == "decorator":
                raise _Unclear("with something that a decorator does not pass on to the function")
            value = _given(argument.value) if keyword == "new" else argument.value
            property_mock |= keyword == "new"
            said = True
            made = _with(
                made, index, keyword=cst.Name("return_value"), value=_listed(value) if single else value
            )
        else:
            raise _Unclear(f"with {keyword or 'an argument'} that may not fit a function")
    if not property_mock:
        raise _Unclear("by something that is not a PropertyMock")
    if edit.comments(made) != edit.comments(call):
        raise _Unclear("with comments beside what has to go")
    if single and not said:
        _wrap_assignments(patch, edits)
    return made


def _with(call: cst.Call, index: int, **changes: cst.CSTNode) -> cst.Call:
    """Return the call with another argument at this position."""
    if "keyword" in changes:
        changes["equal"] = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    args = list(call.args)
    args[index] = args[index].with_changes(**changes)
    return call.with_changes(args=args)


def _mock(patch: Patch, facts: Facts) -> str | None:
    """Return the name of the mock that the patch makes, if it has one."""
    if patch.target is not None:
        return patch.target.value
    function = patch.place.function
    if patch.form == "decorator" and isinstance(function, cst.FunctionDef):
        mocks = [one.decorator for one in reversed(function.decorators) if _makes_mock(one.decorator)]
        names = [param.name.value for param in function.params.params]
        names = names[1:] if names[:1] in (["self"], ["cls"]) else names
        index = mocks.index(patch.node) if patch.node in mocks else len(names)
        return names[index] if index < len(names) else None
    statement = facts.statements.get(patch.node)
    for small in statement.body if isinstance(statement, cst.SimpleStatementLine) else ():
        if isinstance(small, cst.Assign) and small.value is patch.node:
            return dotted(small.targets[0].target)
    return None


def _makes_mock(decorator: cst.BaseExpression) -> bool:
    """Return whether the decorator is a patch that passes its mock on to the function."""
    if not isinstance(decorator, cst.Call):
        return False
    path = dotted(decorator.func) or ""
    positional = sum(not a.keyword for a in decorator.args)
    given = any(a.keyword and a.keyword.value == "new" for a in decorator.args)
    if path.endswith("patch.object"):
        return positional < 3 and not given
    return path.rpartition(".")[2] == "patch" and positional < 2 and not given


def _check_uses(patch: Patch, mock: str, facts: Facts) -> None:
    """
    Check what the function does with the mock, which was asked at each use and is now called once.

    :raises _Unclear: if that may make a difference
    """
    function = patch.place.function
    if any(late.function is function and late.mock == mock for late in facts.late.values()):
        raise _Unclear("and told what to return after the SchedulerJobRunner has loaded its executors")
    asked: set[str] = set()

    class Uses(cst.CSTVisitor):
        def visit_Attribute(self, node: cst.Attribute) -> None:
            if dotted(node.value) == mock:
                asked.add(node.attr.value)

    if not isinstance(function, cst.Module):
        function.visit(Uses())
    if asked - {"return_value", "start", "stop"}:
        raise _Unclear("and its mock is used for more than its return_value")


def _both(patch: Patch, facts: Facts) -> bool:
    # The loader in a file that has been gone through before.
    return patch.place.function in facts.loader_patches or any(
        other.place.function is patch.place.function
        and (path := text_of(other.node.args[0].value)) is not None
        and path.endswith((".Job.executors", ".ExecutorLoader.init_executors"))
        for other in facts.patches.values()
    )


def _listed(value: cst.BaseExpression) -> cst.List:
    return cst.List([cst.Element(value)])


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
        raise _Unclear("and it is not said here what it gives")
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
    if not rest or rest[0].keyword:
        raise _Unclear("with arguments that are not known")
    value = _property_value(rest[0].value)
    body = _listed(value) if single else value
    function = cst.Lambda(params=cst.Parameters(), body=body)
    made = edit.without_argument(call, 0) if patch.on_class else call
    made = _with(made, 0, value=_string(made.args[0].value, LOADER))
    return _with(made, 1, value=function)


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
