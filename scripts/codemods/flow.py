# SPDX-License-Identifier: Apache-2.0
"""
Follow Jobs and their runners through a module, in the order in which it runs.

The names of a variable say nothing about whether it is a Job, and one test may make several with the same
name, so each function is gone through statement by statement: what its names stand for, ways that meet
again, loops until nothing changes. What attributes of ``self`` and pytest's fixtures of the same file stand
for is gathered from all functions, in further rounds. Nothing is changed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import libcst as cst

from codemods.expressions import Class, Frame
from codemods.facts import Facts
from codemods.statements import Statements
from codemods.syntax import dotted, last_name, parameters, text_of
from codemods.values import (
    JOB,
    RUNNER,
    Derived,
    Env,
    Foreign,
    Job,
    Other,
    Ref,
    Runner,
    Value,
    alternatives,
    either,
    is_class,
)

_LISTENERS = ("on_starting", "before_stopping")
_MAX_ROUNDS = 5


def analyze(module: cst.Module) -> Facts:
    """Return what the module does with Jobs, their runners and executors."""
    return _Flow().analyze(module)


class _Flow(Statements):
    def analyze(self, module: cst.Module) -> Facts:
        for _ in range(_MAX_ROUNDS):
            before = self._summary()
            self._module(module)
            if self._summary() == before:
                break
        return self.facts

    def _summary(self) -> object:
        """Return what one round leaves for the next."""
        return (
            {name: dict(found) for name, found in self.fixtures.items()},
            {
                node: {name: dict(values) for name, values in info.attributes.items()}
                for node, info in self.classes.items()
            },
            self.patched_fixtures | self.mock_fixtures,
            self.autouse_patched,
        )

    def _module(self, module: cst.Module) -> None:
        self.order = 0
        self.blocks: list[tuple[cst.CSTNode, int]] = []
        self.loops: list[cst.CSTNode] = []
        self.withs: list[cst.CSTNode] = []
        self.statement: cst.CSTNode | None = None
        self.cls: Class | None = None
        self.frame = Frame(module)
        env = self._block(module, Env()) or Env()
        self._deferred(env)

    def _deferred(self, final: Env) -> None:
        """Go through the functions that the one just ended has defined; they run later."""
        frame = self.frame
        for node, env, bound, cls in frame.deferred:
            if isinstance(frame.node, cst.Module):
                closure = final.copy()
            else:
                closure = env.copy()
                later: dict[str, list[Value | None]] = defaultdict(list)
                for name, value in frame.bound[bound:]:
                    later[name].append(value)
                for name, values in later.items():
                    value = either([env.values.get(name), *values])
                    if value is not None:
                        closure.know(name, value)
            self._function(node, closure, cls, frame)
        self.frame = frame

    def _function(
        self, node: cst.FunctionDef | cst.Lambda, env: Env, cls: Class | None, outer: Frame
    ) -> None:
        saved = (self.frame, self.blocks, self.loops, self.withs, self.statement, self.cls)
        self.frame = Frame(node, cls or outer.cls, outer.self_name, patched=outer.patched)
        self.blocks, self.loops, self.withs, self.cls = [], [], [], None
        fixture = isinstance(node, cst.FunctionDef) and self._decorated(node, "fixture")
        names = []
        for index, param in enumerate(parameters(node.params)):
            names.append(param.name.value)
            env.bind(param.name.value, self._parameter(node, param), param)
            if index == 0 and cls is not None and not self._decorated(node, "staticmethod"):
                self._bind_self(param, env, cls, node)
        requested = {*names, *self._used_fixtures(node)}
        if cls is not None and cls.patched:
            self.frame.patched = True
        if self.autouse_patched or requested & self.patched_fixtures:
            self.frame.patched = True
        self.frame.fixtures = frozenset(requested & self.patched_fixtures)
        self.frame.mocks = frozenset(requested & (self.patched_fixtures | self.mock_fixtures))
        if isinstance(node, cst.FunctionDef) and any(
            self._is_patch(one.decorator) for one in node.decorators
        ):
            self.frame.patched = True
        if isinstance(node, cst.Lambda):
            self._eval(node.body, env)
            final = env
        else:
            final = self._block(node.body, env) or env
        if fixture:
            name = self._fixture_name(node)
            self.fixtures[name][node] = either(self.frame.returned)
            if self.frame.patched or any(p.place.function is node for p in self.facts.patches.values()):
                self.patched_fixtures.add(name)
            if node in self.facts.loader_patches:
                self.mock_fixtures.add(name)
                self.autouse_patched |= self._autouse(node)
        self._deferred(final)
        self.frame, self.blocks, self.loops, self.withs, self.statement, self.cls = saved

    def _bind_self(self, param: cst.Param, env: Env, cls: Class, function: cst.CSTNode) -> None:
        name = self.frame.self_name = param.name.value
        if cls.base == RUNNER:
            env.bind(name, self._remember(Runner, param), param)
        for attribute, values in cls.attributes.items():
            # What this function itself makes, it makes later.
            if all(isinstance(one, Other) for one in values.values()):
                continue
            known = [one for one in values.values() if not _made_in(one, function)]
            if (value := either(known)) is not None:
                env.know(f"{name}.{attribute}", value)

    def _remember(self, kind: type[Runner] | type[Job], node: cst.CSTNode) -> Value:
        """Return the value that the parameter stands for, the same one in each round."""
        key = ("assumed", node)
        if key not in self.others:
            made = Runner(job=Job()) if kind is Runner else Job()
            self.others[key] = made  # type: ignore[assignment]
        return self.others[key]

    def _parameter(self, function: cst.CSTNode, param: cst.Param) -> Value:
        annotation = param.annotation.annotation if param.annotation else None
        for name, kind in ((JOB, Job), (RUNNER, Runner)):
            if annotation is not None and self._annotated(annotation, name):
                return self._remember(kind, param)
        values = [value for value in self.fixtures.get(param.name.value, {}).values() if value is not None]
        if values:
            return either(values) or Other()
        other = self._other("parameter", param)
        if isinstance(function, cst.FunctionDef) and function.name.value in _LISTENERS:
            other.may_be_job = param.name.value == "component" and self._decorated(function, "hookimpl")
        return other

    def _annotated(self, annotation: cst.BaseExpression, name: str) -> bool:
        """Return whether the annotation is this class, perhaps as a string or beside ``None``."""
        if (text := text_of(annotation)) is not None:
            try:
                annotation = cst.parse_expression(text)
            except cst.ParserSyntaxError:
                return False
        if isinstance(annotation, cst.BinaryOperation):
            return self._annotated(annotation.left, name) or self._annotated(annotation.right, name)
        if isinstance(annotation, cst.Subscript) and last_name(annotation.value) == "Optional":
            element = annotation.slice[0].slice
            return isinstance(element, cst.Index) and self._annotated(element.value, name)
        path = dotted(annotation)
        return path is not None and is_class(self.annotations.get(path), name)

    @property
    def annotations(self) -> dict[str, Value]:
        # Annotations may name what is imported below TYPE_CHECKING or further down.
        return {alias: Ref(name) for alias, name in self._aliases.items()}

    def _used_fixtures(self, node: cst.CSTNode) -> set[str]:
        decorators = node.decorators if isinstance(node, cst.FunctionDef | cst.ClassDef) else ()
        return {
            text
            for one in decorators
            if isinstance(one.decorator, cst.Call) and last_name(one.decorator.func) == "usefixtures"
            for argument in one.decorator.args
            if (text := text_of(argument.value)) is not None
        }

    @staticmethod
    def _decorated(node: cst.CSTNode, name: str) -> bool:
        if not isinstance(node, cst.FunctionDef):
            return False
        bare = [one.decorator for one in node.decorators]
        return any(last_name(one.func if isinstance(one, cst.Call) else one) == name for one in bare)

    @staticmethod
    def _fixture_arguments(node: cst.FunctionDef) -> Iterator[cst.Arg]:
        for one in node.decorators:
            if isinstance(one.decorator, cst.Call) and last_name(one.decorator.func) == "fixture":
                yield from one.decorator.args

    def _fixture_name(self, node: cst.FunctionDef) -> str:
        named = [
            text_of(a.value) for a in self._fixture_arguments(node) if a.keyword and a.keyword.value == "name"
        ]
        return (named and named[0]) or node.name.value

    def _autouse(self, node: cst.FunctionDef) -> bool:
        return any(a.keyword and a.keyword.value == "autouse" for a in self._fixture_arguments(node))

    def _is_patch(self, node: cst.BaseExpression) -> bool:
        return isinstance(node, cst.Call) and node in self.facts.patches

    def _class_def(self, node: cst.ClassDef, env: Env) -> None:
        info = self.classes.setdefault(node, Class(node))
        for base in node.bases:
            value = self._eval(base.value, env)
            for name in (JOB, RUNNER):
                if is_class(value, name) or any(
                    isinstance(one, Derived) and one.base == name for one in alternatives(value)
                ):
                    info.base = name
        for one in node.decorators:
            self._eval(one.decorator, env, form="decorator")
            info.patched |= self._is_patch(one.decorator)
        info.patched |= bool(self._used_fixtures(node) & self.patched_fixtures)
        inner = env.copy()
        saved, self.cls = self.cls, info
        inner = self._block(node.body, inner) or inner
        self.cls = saved
        for name, value in inner.values.items():
            if "." not in name and env.values.get(name) is not value:
                info.attributes[name][node] = value
        own = any(isinstance(s, cst.FunctionDef) and s.name.value == "__init__" for s in node.body.body)
        if info.base:
            as_base = Ref(info.base) if info.base == RUNNER and not own else Derived(info.base)
            self._bind(env, node.name.value, as_base, node)
        else:
            self._bind(env, node.name.value, Foreign(), node)


def _made_in(value: Value, function: cst.CSTNode) -> bool:
    return any(
        isinstance(one, Job | Runner) and one.place is not None and one.place.function is function
        for one in alternatives(value)
    )
