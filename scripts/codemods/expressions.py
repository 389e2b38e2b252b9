# SPDX-License-Identifier: Apache-2.0
"""Follow expressions: what they stand for, and the Jobs, runners and patches that they make."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import libcst as cst

from codemods.facts import Facts, Late, Patch, Use
from codemods.syntax import EXECUTORS, dotted, last_name, names_in, parameters, text_of
from codemods.values import (
    JOB,
    RUNNER,
    Derived,
    Env,
    Foreign,
    Job,
    Other,
    Place,
    Ref,
    Runner,
    Value,
    alternatives,
    either,
    is_class,
)

# After these the first element may be another one, which the attribute ``executor`` of a runner ignores.
# After these the first element may be another one, which the attribute ``executor`` of a runner ignores.
_CHANGES = ("clear", "insert", "pop", "remove", "reverse", "sort")
_PATCHED_PATH = re.compile(r"airflow(\.\w+)*\.Job\.executors?")


@dataclass(eq=False)
class Class:
    """What is known of a class from all of its methods."""

    node: cst.ClassDef
    base: str = ""
    attributes: dict[str, dict[cst.CSTNode, Value]] = field(default_factory=lambda: defaultdict(dict))
    patched: bool = False


@dataclass(eq=False)
class Frame:
    """The function that is gone through, or the module."""

    node: cst.CSTNode
    cls: Class | None = None
    self_name: str = ""
    bound: list[tuple[str, Value | None]] = field(default_factory=list)
    deferred: list[tuple[cst.FunctionDef | cst.Lambda, Env, int, Class | None]] = field(default_factory=list)
    returned: list[Value] = field(default_factory=list)
    runners: bool = False
    patched: bool = False
    fixtures: frozenset[str] = frozenset()
    mocks: frozenset[str] = frozenset()


class Expressions:
    """The part of the walk through a module that is about expressions."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._aliases: dict[str, str] = {}
        self.classes: dict[cst.ClassDef, Class] = {}
        self.fixtures: dict[str, dict[cst.CSTNode, Value | None]] = defaultdict(dict)
        self.patched_fixtures: set[str] = set()
        self.mock_fixtures: set[str] = set()
        self.autouse_patched = False
        self.others: dict[tuple[object, ...], Other] = {}
        self.contexts_of: dict[cst.CSTNode, str] = {}
        self.patching: set[cst.CSTNode] = set()
        self.fields: dict[type, list[str]] = {}

    # Names

    def _other(self, *key: object) -> Other:
        return self.others.setdefault(key, Other())

    def _bind(self, env: Env, name: str, value: Value | None, node: cst.CSTNode) -> None:
        env.bind(name, value, node)
        self.frame.bound.append((name, value))
        root, _, attribute = name.partition(".")
        info = self.frame.cls
        if info is not None and attribute and "." not in attribute and root == self.frame.self_name:
            if value is None:
                info.attributes[attribute].pop(node, None)
            else:
                info.attributes[attribute][node] = value

    def _assign(
        self, target: cst.BaseExpression, source: cst.BaseExpression | None, value: Value | None, env: Env
    ) -> None:
        if isinstance(target, cst.Tuple | cst.List):
            sources: Sequence[cst.BaseElement] = (
                source.elements if isinstance(source, cst.Tuple | cst.List) else ()
            )
            for index, element in enumerate(target.elements):
                inner = element.value
                if len(sources) == len(target.elements):
                    own = sources[index].value
                    self._assign(inner, own, self._known(own, env), env)
                else:
                    self._assign(inner, None, self._other("element", inner), env)
            return
        if isinstance(target, cst.Attribute):
            if target.attr.value in EXECUTORS:
                self.contexts_of[target] = "store"
                self._eval(target, env)
            else:
                self._eval(target.value, env)
            if target.attr.value == "return_value" and self.frame.runners:
                mock = dotted(target.value)
                self.facts.late[target] = Late(self.frame.node, mock, mock in self.frame.mocks)
        elif isinstance(target, cst.Subscript):
            self.contexts_of[target.value] = "change"
            self._eval(target, env)
        if name := dotted(target):
            # None means: not made yet.
            nothing = isinstance(source, cst.Name) and source.value == "None"
            self._bind(env, name, None if nothing else value or self._other("bound", target), target)

    def _known(self, node: cst.BaseExpression, env: Env) -> Value | None:
        """Return what the expression was found to be; it has been evaluated before."""
        if isinstance(node, cst.Call):
            return self.facts.jobs.get(node) or self.facts.runners.get(node) or self._other(node)
        name = dotted(node)
        return env.values.get(name) if name else None

    # Expressions

    def _children(self, node: cst.CSTNode, env: Env) -> None:
        names = self.fields.get(type(node))
        if names is None:
            skipped = ("lpar", "rpar", "comma", "semicolon", "leading_lines", "dot", "equal", "colon")
            names = self.fields[type(node)] = [
                f.name
                for f in dataclasses.fields(node)
                if f.name not in skipped and "whitespace" not in f.name
            ]
        for name in names:
            child = getattr(node, name)
            for one in child if isinstance(child, list | tuple) else (child,):
                if isinstance(one, cst.CSTNode):
                    self._eval(one, env)

    def _eval(self, node: cst.CSTNode, env: Env, **context: object) -> Value | None:
        method = getattr(self, f"_eval_{type(node).__name__}", None)
        if method is None:
            self._children(node, env)
            return self._other(node) if isinstance(node, cst.BaseExpression) else None
        if isinstance(node, cst.Call):
            return method(node, env, **context)
        return method(node, env)

    def _eval_Name(self, node: cst.Name, env: Env) -> Value | None:
        value = env.values.get(node.value)
        if isinstance(value, Ref):
            self.facts.refs[node] = value
        return value

    def _eval_Attribute(self, node: cst.Attribute, env: Env) -> Value | None:
        base = self._eval(node.value, env)
        if isinstance(base, Ref):
            if node.attr.value in EXECUTORS and is_class(base, JOB):
                self._use(node, base, env)
                return self._other(node)
            if base.name == "airflow.jobs.job" and node.attr.value == "ExecutorLoader":
                self.facts.imports[node] = node.attr.value
            return Ref(f"{base.name}.{node.attr.value}")
        if node.attr.value in EXECUTORS:
            self._use(node, base, env)
            return self._other(node)
        name = dotted(node)
        if name is not None and name in env.values:
            return env.values[name]
        if node.attr.value == "job" and (jobs := _jobs_of(base)) is not None:
            return jobs
        return None

    def _use(self, node: cst.Attribute, base: Value | None, env: Env) -> None:
        via = None
        inner = node.value
        if isinstance(inner, cst.Attribute) and inner.attr.value == "job":
            owner = self._quietly(inner.value, env)
            if owner is not None and all(isinstance(one, Runner) for one in alternatives(owner)):
                via = inner.value
        base = self._named(inner, base, env)
        runners = [
            (name, value)
            for name, value in env.values.items()
            if all(isinstance(one, Runner) for one in alternatives(value))
        ]
        self.facts.uses[node] = Use(
            node, base, self.contexts_of.get(node, "load"), runners, via, self._place(), env.copy()
        )

    def _quietly(self, node: cst.BaseExpression, env: Env) -> Value | None:
        if isinstance(node, cst.Call):
            return self.facts.runners.get(node)
        name = dotted(node)
        if name is not None and name in env.values:
            return env.values[name]
        return None

    def _named(self, node: cst.BaseExpression, value: Value | None, env: Env) -> Value:
        """Return the value; if nothing is known, let the name stand for the same unknown from here on."""
        if value is not None:
            return value
        name = dotted(node)
        if name is None:
            return self._other("unknown", node)
        value = self._other("unknown", self.frame.node, name)
        env.know(name, value)
        return value

    def _place(self) -> Place:
        self.order += 1
        return Place(
            self.frame.node,
            self.statement,
            tuple(self.blocks),
            tuple(self.loops),
            tuple(self.withs),
            self.order,
        )

    def _eval_SimpleString(self, node: cst.SimpleString | cst.ConcatenatedString, env: Env) -> Value:
        text = text_of(node)
        if text is not None and _PATCHED_PATH.fullmatch(text):
            self.facts.strings[node] = text
        if isinstance(node, cst.ConcatenatedString):
            self._formatted(node)
        return self._other(node)

    _eval_ConcatenatedString = _eval_SimpleString

    def _eval_FormattedString(self, node: cst.FormattedString, env: Env) -> Value:
        self._children(node, env)
        self._formatted(node)
        return self._other(node)

    def _formatted(self, node: cst.CSTNode) -> None:
        """Keep a string that is put together and ends in the attribute."""
        last = node
        while isinstance(last, cst.ConcatenatedString):
            last = last.right
        if isinstance(last, cst.FormattedString) and last.parts:
            part = last.parts[-1]
            if isinstance(part, cst.FormattedStringText) and re.search(r"\bJob\.executors?$", part.value):
                self.facts.strings[node] = part.value

    def _eval_Lambda(self, node: cst.Lambda, env: Env) -> Value:
        for param in parameters(node.params):
            if param.default is not None:
                self._eval(param.default, env)
        self.frame.deferred.append((node, self._closure(env), len(self.frame.bound), None))
        return self._other(node)

    def _eval_NamedExpr(self, node: cst.NamedExpr, env: Env) -> Value | None:
        value = self._eval(node.value, env)
        self._assign(node.target, node.value, value, env)
        return value

    def _eval_IfExp(self, node: cst.IfExp, env: Env) -> Value | None:
        self._eval(node.test, env)
        return either((self._eval(node.body, env), self._eval(node.orelse, env)))

    def _eval_Yield(self, node: cst.Yield, env: Env) -> Value:
        if isinstance(node.value, cst.From):
            self._eval(node.value.item, env)
        else:
            self._returns(node.value, env)
        return self._other(node)

    def _comprehension(self, node: cst.CSTNode, parts: Sequence[cst.CSTNode], env: Env) -> Value:
        inside = env.copy()
        part: cst.CompFor | None = node.for_in  # type: ignore[attr-defined]
        self.loops.append(node)
        while part is not None:
            self._eval(part.iter, inside)
            self._assign(part.target, None, self._other(part), inside)
            for condition in part.ifs:
                self._eval(condition.test, inside)
            part = part.inner_for_in
        for one in parts:
            self._eval(one, inside)
        self.loops.pop()
        return self._other(node)

    def _eval_ListComp(self, node: cst.ListComp | cst.SetComp | cst.GeneratorExp, env: Env) -> Value:
        return self._comprehension(node, (node.elt,), env)

    _eval_SetComp = _eval_ListComp
    _eval_GeneratorExp = _eval_ListComp

    def _eval_DictComp(self, node: cst.DictComp, env: Env) -> Value:
        return self._comprehension(node, (node.key, node.value), env)

    # Calls

    def _eval_Call(
        self,
        node: cst.Call,
        env: Env,
        form: str = "call",
        target: cst.Name | None = None,
        function: cst.FunctionDef | None = None,
    ) -> Value:
        func = node.func
        if isinstance(func, cst.Attribute) and func.attr.value in _CHANGES:
            self.contexts_of[func.value] = "change"
        called = self._eval(func, env)
        values = [self._eval(argument.value, env) for argument in node.args]
        self.facts.statements[node] = self.statement
        if is_class(called, JOB):
            if any(_may_hold_executor(argument) for argument in node.args):
                self.facts.suspects[node] = "Job may get an executor by * or **"
            return self._job(node, env)
        if is_class(called, RUNNER):
            return self._runner(node, values, env)
        first = values[0] if values else None
        second = text_of(node.args[1].value) if len(node.args) > 1 else None
        text = text_of(node.args[0].value) if node.args else None
        if text is not None and re.fullmatch(r"airflow\.jobs\.job\.ExecutorLoader(\.\w+)*", text):
            self._patch(node, form, target, False, function)
        elif text is not None and text.endswith(".ExecutorLoader.init_executors"):
            self.facts.loader_patches.add(function or self.frame.node)
        elif text is not None and _PATCHED_PATH.fullmatch(text):
            if last_name(func) in ("patch", "setattr"):
                self.facts.strings.pop(node.args[0].value, None)
                self._patch(node, form, target, False, function)
        elif second == "ExecutorLoader" and first == Ref("airflow.jobs.job"):
            self.facts.imports[node] = second
        elif second in EXECUTORS and is_class(first, JOB):
            self._patch(node, form, target, True, function)
        elif second in EXECUTORS and any(isinstance(one, Job) for one in alternatives(first)):
            self.facts.named[node] = first or Other()
        self._suspect(node, called, values)
        other = self._other(node)
        other.foreign = isinstance(called, Foreign)
        return other

    def _patch(
        self,
        node: cst.Call,
        form: str,
        target: cst.Name | None,
        on_class: bool,
        function: cst.CSTNode | None,
    ) -> None:
        place = self._place()
        if function is not None:
            place.function = function
        self.facts.patches[node] = Patch(node, form, target, place, self.frame.runners, on_class)
        if form == "call":
            self.frame.patched = True

    def _job(self, node: cst.Call, env: Env) -> Job:
        job = self.facts.jobs.setdefault(node, Job(call=node))
        job.place = self._place()
        job.executor = _executor_argument(node)
        if job.executor is not None:
            job.versions = env.versions_of(names_in(node.args[job.executor].value))
        job.fixtures = self.frame.fixtures
        job.patched = self.frame.patched or any(one in self.patching for one in self.withs)
        return job

    def _runner(self, node: cst.Call, values: list[Value | None], env: Env) -> Runner:
        runner = self.facts.runners.setdefault(node, Runner(job=Other(), call=node))
        job = None
        for index, argument in enumerate(node.args):
            if argument.star:
                continue
            keyword = argument.keyword.value if argument.keyword else None
            if keyword == "job" or (keyword is None and index == 0):
                job = self._named(argument.value, values[index], env)
        runner.job = job if job is not None else self._other("no job", node)
        runner.place = self._place()
        runner.versions = dict(env.versions)
        self.frame.runners = True
        return runner

    def _suspect(self, node: cst.Call, called: Value | None, values: list[Value | None]) -> None:
        """Keep a call that is likely to make a Job with an executor, in a way that is not followed here."""
        keywords = {argument.keyword.value for argument in node.args if argument.keyword}
        if not keywords & set(EXECUTORS):
            return
        if any(isinstance(one, Derived) and one.base == JOB for one in alternatives(called)):
            self.facts.suspects[node] = "a class derived from Job is given an executor"
        elif any(is_class(value, JOB) for value in values):
            self.facts.suspects[node] = "Job is passed on together with an executor"
        elif last_name(node.func) == "Job" and not any(
            isinstance(one, Ref | Foreign) for one in alternatives(called)
        ):
            self.facts.suspects[node] = "it is not known which class Job is here"


def _executor_argument(node: cst.Call) -> int | None:
    for index, argument in enumerate(node.args):
        if argument.keyword is not None:
            if argument.keyword.value == "executor":
                return index
        elif not argument.star and index == 0 and not _is_number(argument.value):
            return index
    return None


def _may_hold_executor(argument: cst.Arg) -> bool:
    """Return whether it is ``*`` or ``**`` of something that may have an executor for Job in it."""
    if argument.star == "**" and isinstance(argument.value, cst.Dict):
        keys = [e.key if isinstance(e, cst.DictElement) else None for e in argument.value.elements]
        return any(text_of(key) in (None, "executor") for key in keys)
    return bool(argument.star)


def _is_number(node: cst.BaseExpression) -> bool:
    """Return whether it is a heartrate, which is the first parameter once there is no executor."""
    return isinstance(node, cst.Integer | cst.Float | cst.BinaryOperation | cst.UnaryOperation)


def _jobs_of(value: Value | None) -> Value | None:
    found = alternatives(value)
    if found and all(isinstance(one, Runner) for one in found):
        return either(one.job for one in found if isinstance(one, Runner))
    return None
