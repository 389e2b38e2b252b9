# SPDX-License-Identifier: Apache-2.0
"""Follow statements, in the order in which they run: ways that part and meet again, and loops."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from codemods.expressions import Expressions
from codemods.syntax import EXECUTORS, captured, dotted, parameters
from codemods.values import JOB, RUNNER, Env, Job, Ref


class Statements(Expressions):
    """The part of the walk through a module that is about statements."""

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
        for param in parameters(node.params):
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
            for name in captured(case.pattern):
                self._bind(inside, name.value, self._other(name), name)
            if case.guard is not None:
                self._eval(case.guard, inside)
            ends.append(self._block(case.body, inside))
        return _joined(ends)


def _joined(ends: Sequence[Env | None]) -> Env | None:
    """Return what is known where several ways meet, of those that get there."""
    alive = [env for env in ends if env is not None]
    if not alive:
        return None
    result = alive[0]
    for env in alive[1:]:
        result = result.join(env)
    return result.copy()
