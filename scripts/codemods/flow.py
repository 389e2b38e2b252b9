# SPDX-License-Identifier: Apache-2.0
"""
Follow Jobs and their runners through a module, in the order in which it runs.

The names of a variable say nothing about whether it is a Job, and one test may make several with the same
name, so each function is gone through statement by statement: what its names stand for, ways that meet
again, loops until nothing changes. What attributes of ``self`` and pytest's fixtures of the same file stand
for is gathered from all functions, in further rounds. Nothing is changed here.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import libcst as cst

from codemods.values import (
    JOB,
    RUNNER,
    Derived,
    Either,
    Env,
    Job,
    Other,
    Place,
    Ref,
    Runner,
    Value,
    alternatives,
    dotted,
    either,
    is_class,
)

EXECUTORS = ("executor", "executors")
# After these the first element may be another one, which the attribute ``executor`` of a runner ignores.
_CHANGES = ("clear", "insert", "pop", "remove", "reverse", "sort")
_LISTENERS = ("on_starting", "before_stopping")
_PATCHED_PATH = re.compile(r"airflow(\.\w+)*\.Job\.executors?")
_MAX_ROUNDS = 5


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
    suspects: dict[cst.Call, str] = field(default_factory=dict)
    """Calls that may make a Job with an executor, and why that is not known."""
    imports: dict[cst.CSTNode, str] = field(default_factory=dict)
    """Imports of what ``airflow.jobs.job`` no longer has."""
    refs: dict[cst.Name, Ref] = field(default_factory=dict)
    """Names that were imported."""
    modules: set[str] = field(default_factory=set)
    """All that is imported."""
    statements: dict[cst.Call, cst.CSTNode | None] = field(default_factory=dict)


@dataclass(eq=False)
class _Class:
    node: cst.ClassDef
    base: str = ""
    attributes: dict[str, dict[cst.CSTNode, Value]] = field(default_factory=lambda: defaultdict(dict))
    patched: bool = False


@dataclass(eq=False)
class _Frame:
    node: cst.CSTNode
    cls: _Class | None = None
    self_name: str = ""
    bound: list[tuple[str, Value | None]] = field(default_factory=list)
    deferred: list[tuple[cst.FunctionDef | cst.Lambda, Env, int, _Class | None]] = field(default_factory=list)
    returned: list[Value] = field(default_factory=list)
    runners: bool = False
    patched: bool = False
    fixtures: frozenset[str] = frozenset()


def text_of(node: cst.CSTNode | None) -> str | None:
    """Return what a string literal says, or ``None`` if it is not one, or not known before it runs."""
    if isinstance(node, cst.SimpleString | cst.ConcatenatedString):
        text = node.evaluated_value
        return text if isinstance(text, str) else None
    return None


def last_name(node: cst.BaseExpression) -> str:
    """Return ``c`` for ``c`` and for ``a.b.c``."""
    if isinstance(node, cst.Attribute):
        return node.attr.value
    return node.value if isinstance(node, cst.Name) else ""


def analyze(module: cst.Module) -> Facts:
    """Return what the module does with Jobs, their runners and executors."""
    return _Flow().analyze(module)


class _Flow:
    def __init__(self) -> None:
        self.facts = Facts()
        self._aliases: dict[str, str] = {}
        self.classes: dict[cst.ClassDef, _Class] = {}
        self.fixtures: dict[str, dict[cst.CSTNode, Value | None]] = defaultdict(dict)
        self.patched_fixtures: set[str] = set()
        self.autouse_patched = False
        self.others: dict[tuple[object, ...], Other] = {}
        self.contexts_of: dict[cst.CSTNode, str] = {}
        self.patching: set[cst.CSTNode] = set()
        self.fields: dict[type, list[str]] = {}

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
            set(self.patched_fixtures),
            self.autouse_patched,
        )

    def _module(self, module: cst.Module) -> None:
        self.order = 0
        self.blocks: list[tuple[cst.CSTNode, int]] = []
        self.loops: list[cst.CSTNode] = []
        self.withs: list[cst.CSTNode] = []
        self.statement: cst.CSTNode | None = None
        self.cls: _Class | None = None
        self.frame = _Frame(module)
        env = self._block(module, Env()) or Env()
        self._deferred(env)

    # Functions and classes

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
        self, node: cst.FunctionDef | cst.Lambda, env: Env, cls: _Class | None, outer: _Frame
    ) -> None:
        saved = (self.frame, self.blocks, self.loops, self.withs, self.statement, self.cls)
        self.frame = _Frame(node, cls or outer.cls, outer.self_name, patched=outer.patched)
        self.blocks, self.loops, self.withs, self.cls = [], [], [], None
        fixture = isinstance(node, cst.FunctionDef) and self._decorated(node, "fixture")
        names = []
        for index, param in enumerate(_parameters(node.params)):
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
                self.autouse_patched |= self._autouse(node)
        self._deferred(final)
        self.frame, self.blocks, self.loops, self.withs, self.statement, self.cls = saved

    def _bind_self(self, param: cst.Param, env: Env, cls: _Class, function: cst.CSTNode) -> None:
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
        info = self.classes.setdefault(node, _Class(node))
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
            self._bind(env, node.name.value, self._other(node), node)

    # Statements

    def _block(self, block: cst.CSTNode, env: Env) -> Env | None:
        """Go through the statements of a block; return ``None`` if its end is never reached."""
        dead = False
        for index, statement in enumerate(block.body):  # type: ignore[attr-defined]
            self.blocks.append((block, index))
            after = self._statement(statement, env)
            self.blocks.pop()
            dead = dead or after is None
            env = env if after is None else after
        return None if dead else env

    def _statement(self, node: cst.CSTNode, env: Env) -> Env | None:
        method = getattr(self, f"_do_{type(node).__name__}", None)
        self.statement = node if not isinstance(node, cst.BaseSmallStatement) else self.statement
        if method is not None:
            return method(node, env)
        self._children(node, env)
        return env

    def _do_SimpleStatementLine(self, node: cst.SimpleStatementLine, env: Env) -> Env | None:
        dead = False
        for small in node.body:
            dead |= self._statement(small, env) is None
        return None if dead else env

    def _do_SimpleStatementSuite(self, node: cst.SimpleStatementSuite, env: Env) -> Env | None:
        return self._block(node, env)

    def _do_Return(self, node: cst.Return, env: Env) -> None:
        self._returns(node.value, env)

    def _do_Raise(self, node: cst.Raise, env: Env) -> None:
        self._children(node, env)

    def _returns(self, node: cst.BaseExpression | None, env: Env) -> None:
        value = self._eval(node, env) if node is not None else None
        if value is not None:
            self.frame.returned.append(value)

    def _do_Assign(self, node: cst.Assign, env: Env) -> Env:
        value = self._eval(node.value, env)
        for target in node.targets:
            self._assign(target.target, node.value, value, env)
        return env

    def _do_AnnAssign(self, node: cst.AnnAssign, env: Env) -> Env:
        if node.value is not None:
            self._assign(node.target, node.value, self._eval(node.value, env), env)
        elif self._annotated(node.annotation.annotation, JOB) and (name := dotted(node.target)):
            self._bind(env, name, self._remember(Job, node.target), node)
        return env

    def _do_AugAssign(self, node: cst.AugAssign, env: Env) -> Env:
        self._eval(node.value, env)
        self._assign(node.target, None, self._other(node), env)
        return env

    def _do_Del(self, node: cst.Del, env: Env) -> Env:
        targets = (
            [e.value for e in node.target.elements] if isinstance(node.target, cst.Tuple) else [node.target]
        )
        for target in targets:
            if isinstance(target, cst.Attribute) and target.attr.value in EXECUTORS:
                self.contexts_of[target] = "delete"
            elif isinstance(target, cst.Subscript):
                self.contexts_of[target.value] = "change"
            self._eval(target, env)
            if name := dotted(target):
                self._bind(env, name, None, target)
        return env

    def _do_Import(self, node: cst.Import, env: Env) -> Env:
        for alias in node.names:
            name = dotted(alias.name) or ""
            self.facts.modules.add(name)
            if alias.asname is not None:
                self._imported(dotted(alias.asname.name) or "", name, alias, env)
            else:
                self._imported(name.partition(".")[0], name.partition(".")[0], alias, env)
        return env

    def _do_ImportFrom(self, node: cst.ImportFrom, env: Env) -> Env:
        module = (dotted(node.module) or "") if node.module is not None else ""
        module = "." * len(node.relative) + module
        self.facts.modules.add(module)
        if isinstance(node.names, cst.ImportStar):
            for name in (JOB, RUNNER):
                if name.rpartition(".")[0] == module:
                    self._imported(name.rpartition(".")[2], name, node, env)
            return env
        for alias in node.names:
            name = alias.evaluated_name
            self.facts.modules.add(f"{module}.{name}")
            if module == "airflow.jobs.job" and name == "ExecutorLoader":
                self.facts.imports[alias] = name
            self._imported(alias.evaluated_alias or name, f"{module}.{name}", alias, env)
        return env

    def _imported(self, alias: str, name: str, node: cst.CSTNode, env: Env) -> None:
        self._aliases = {**self._aliases, alias: name}
        self._bind(env, alias, Ref(name), node)

    def _do_FunctionDef(self, node: cst.FunctionDef, env: Env) -> Env:
        for one in node.decorators:
            self._eval(one.decorator, env, form="decorator", function=node)
        for param in _parameters(node.params):
            if param.default is not None:
                self._eval(param.default, env)
        self.frame.deferred.append((node, self._closure(env), len(self.frame.bound), self.cls))
        self._bind(env, node.name.value, self._other(node), node)
        return env

    def _closure(self, env: Env) -> Env:
        if self.cls is None:
            return env.copy()
        # The names of a class are not those of its methods.
        outer = env.copy()
        for name in list(outer.values):
            if outer.values[name] in self.cls.attributes.get(name, {}).values():
                del outer.values[name]
        return outer

    def _do_ClassDef(self, node: cst.ClassDef, env: Env) -> Env:
        self._class_def(node, env)
        return env

    def _do_If(self, node: cst.If, env: Env) -> Env | None:
        self._eval(node.test, env)
        then = self._block(node.body, env.copy())
        if isinstance(node.orelse, cst.If):
            otherwise = self._do_If(node.orelse, env.copy())
        elif node.orelse is not None:
            otherwise = self._block(node.orelse.body, env.copy())
        else:
            otherwise = env
        return _joined((then, otherwise))

    def _do_For(self, node: cst.For, env: Env) -> Env | None:
        self._eval(node.iter, env)
        return self._loop(node, env)

    def _do_While(self, node: cst.While, env: Env) -> Env | None:
        return self._loop(node, env)

    def _loop(self, node: cst.For | cst.While, env: Env) -> Env | None:
        self.loops.append(node)
        while True:
            inside = env.copy()
            if isinstance(node, cst.For):
                self._assign(node.target, None, self._other(node), inside)
            else:
                self._eval(node.test, inside)
            after = self._block(node.body, inside)
            joined = env if after is None else env.join(after)
            if joined.same(env):
                break
            env = joined
        self.loops.pop()
        return self._block(node.orelse.body, env) if node.orelse is not None else env

    def _do_Try(self, node: cst.Try | cst.TryStar, env: Env) -> Env | None:
        body = self._block(node.body, env.copy())
        ends = []
        for handler in node.handlers:
            # What has failed may have been anywhere in the body.
            inside = _joined((env, body)) or env.copy()
            if handler.type is not None:
                self._eval(handler.type, inside)
            if handler.name is not None:
                self._assign(handler.name.name, None, self._other(handler), inside)
            ends.append(self._block(handler.body, inside))
        if body is not None and node.orelse is not None:
            body = self._block(node.orelse.body, body)
        joined = _joined((body, *ends))
        if node.finalbody is not None:
            after = self._block(node.finalbody.body, joined or env.copy())
            return None if joined is None else after
        return joined

    _do_TryStar = _do_Try

    def _do_With(self, node: cst.With, env: Env) -> Env | None:
        for item in node.items:
            target = item.asname.name if item.asname is not None else None
            name = target if isinstance(target, cst.Name) else None
            value = self._eval(item.item, env, form="with", target=name)
            if self._is_patch(item.item):
                self.patching.add(node)
            if target is not None:
                self._assign(target, item.item, value, env)
        self.withs.append(node)
        after = self._block(node.body, env)
        self.withs.pop()
        return after

    def _do_Match(self, node: cst.Match, env: Env) -> Env | None:
        self._eval(node.subject, env)
        ends: list[Env | None] = [env]
        for case in node.cases:
            inside = env.copy()
            self._children(case.pattern, inside)
            for name in _captured(case.pattern):
                self._bind(inside, name.value, self._other(name), name)
            if case.guard is not None:
                self._eval(case.guard, inside)
            ends.append(self._block(case.body, inside))
        return _joined(ends)

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
        for param in _parameters(node.params):
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
        elif second in EXECUTORS and is_class(first, JOB):
            self._patch(node, form, target, True, function)
        elif second in EXECUTORS and any(isinstance(one, Job) for one in alternatives(first)):
            self.facts.named[node] = first or Other()
        self._suspect(node, called, values)
        return self._other(node)

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
        elif last_name(node.func) == "Job" and not any(isinstance(o, Ref) for o in alternatives(called)):
            self.facts.suspects[node] = "it is not known which class Job is here"


def names_in(node: cst.CSTNode) -> set[str]:
    """Return the names ``a`` and ``a.b`` that an expression reads."""
    found: set[str] = set()

    class Names(cst.CSTVisitor):
        def visit_Name(self, name: cst.Name) -> None:
            found.add(name.value)

        def visit_Attribute(self, attribute: cst.Attribute) -> bool:
            if path := dotted(attribute):
                found.add(path)
                return False
            attribute.value.visit(self)
            return False

        def visit_Arg_keyword(self, arg: cst.Arg) -> None:
            return None

    node.visit(Names())
    return found


def _executor_argument(node: cst.Call) -> int | None:
    for index, argument in enumerate(node.args):
        if argument.keyword is not None:
            if argument.keyword.value == "executor":
                return index
        elif not argument.star and index == 0 and not _is_number(argument.value):
            return index
    return None


def _is_number(node: cst.BaseExpression) -> bool:
    """Return whether it is a heartrate, which is the first parameter once there is no executor."""
    return isinstance(node, cst.Integer | cst.Float | cst.BinaryOperation | cst.UnaryOperation)


def _jobs_of(value: Value | None) -> Value | None:
    found = alternatives(value)
    if found and all(isinstance(one, Runner) for one in found):
        return either(one.job for one in found if isinstance(one, Runner))
    return None


def _made_in(value: Value, function: cst.CSTNode) -> bool:
    return any(
        isinstance(one, Job | Runner) and one.place is not None and one.place.function is function
        for one in alternatives(value)
    )


def _joined(ends: Sequence[Env | None]) -> Env | None:
    """Return what is known where several ways meet, of those that get there."""
    alive = [env for env in ends if env is not None]
    if not alive:
        return None
    result = alive[0]
    for env in alive[1:]:
        result = result.join(env)
    return result.copy()


def _parameters(parameters: cst.Parameters) -> Iterator[cst.Param]:
    yield from parameters.posonly_params
    yield from parameters.params
    if isinstance(parameters.star_arg, cst.Param):
        yield parameters.star_arg
    yield from parameters.kwonly_params
    if parameters.star_kwarg is not None:
        yield parameters.star_kwarg


def _captured(pattern: cst.CSTNode) -> list[cst.Name]:
    found: list[cst.Name] = []

    class Captures(cst.CSTVisitor):
        def visit_MatchAs(self, node: cst.MatchAs) -> None:
            if node.name is not None:
                found.append(node.name)

        def visit_MatchStar(self, node: cst.MatchStar) -> None:
            if node.name is not None:
                found.append(node.name)

    pattern.visit(Captures())
    return found


__all__ = [
    "EXECUTORS",
    "Either",
    "Facts",
    "Patch",
    "Use",
    "analyze",
    "dotted",
    "last_name",
    "names_in",
    "text_of",
]
