# SPDX-License-Identifier: Apache-2.0
"""What is to be changed in a module, and what a human has to look at."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import libcst as cst

from codemods import edits as edit
from codemods import patched
from codemods.edits import Edits
from codemods.facts import Facts, Use
from codemods.flow import analyze
from codemods.syntax import dotted, last_name, names_in
from codemods.values import JOB, Either, Job, Other, Ref, Runner, Value, alternatives, is_class

_PASS = "pass executors=[...] to the SchedulerJobRunner"
_ASK = "read the attribute of the SchedulerJobRunner"


@dataclass(frozen=True)
class Finding:
    """Something that was not changed, because it is not certain how."""

    node: cst.CSTNode
    problem: str
    remedy: str


@dataclass
class Plan:
    """The changes of one module."""

    edits: Edits = field(default_factory=Edits)
    counts: Counter[str] = field(default_factory=Counter)
    """How many changes of each pattern."""
    findings: list[Finding] = field(default_factory=list)
    unused: set[tuple[str, str]] = field(default_factory=set)
    """Module and name of imports that lose a use."""


def plan(module: cst.Module) -> Plan:
    """Return what is to be changed in a module; it is not changed here."""
    return _Planner(analyze(module)).plan()


def is_simple(node: cst.BaseExpression) -> bool:
    """Return whether evaluating it twice, or later, gives the very same object: a name, an attribute."""
    return dotted(node) is not None or isinstance(node, cst.Integer | cst.SimpleString)


def _contains(node: cst.CSTNode, kinds: tuple[type[cst.CSTNode], ...]) -> bool:
    if isinstance(node, kinds):
        return True
    return any(_contains(child, kinds) for child in node.children)


class _Planner:
    def __init__(self, facts: Facts):
        self.facts = facts
        self.plan_ = Plan()
        self.moved: set[Job] = set()
        self.renamed: dict[cst.CSTNode, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.moves: dict[cst.CSTNode, dict[cst.CSTNode, list[int]]] = defaultdict(lambda: defaultdict(list))

    def plan(self) -> Plan:
        for job in self.facts.jobs.values():
            if job.executor is not None:
                self._constructor(job)
        for use in self.facts.uses.values():
            self._use(use)
        self._move_statements()
        self._comments()
        for call, value in self.facts.named.items():
            self._named(call, value)
        patched.plan(self.facts, self.plan_.edits, self.plan_.counts, self.plan_.unused, self._report)
        for node, text in self.facts.strings.items():
            self._report(
                node,
                f"a string names {text[text.rindex('Job.') :]}, in a place that is not known",
                f"name {patched.LOADER} where it is for patching",
            )
        for call, why in self.facts.suspects.items():
            self._report(call, why, _PASS)
        for node in self.facts.imports:
            self._report(
                node,
                "airflow.jobs.job has no ExecutorLoader any more",
                "import it from airflow.executors.executor_loader",
            )
        return self.plan_

    def _report(self, node: cst.CSTNode, problem: str, remedy: str) -> None:
        self.plan_.findings.append(Finding(node, problem, remedy))

    def _count(self, pattern: str) -> None:
        self.plan_.counts[pattern] += 1

    # Job(executor=...)

    def _constructor(self, job: Job) -> None:
        call, index = job.call, job.executor
        assert call is not None
        assert index is not None
        assert job.place is not None
        argument = call.args[index]
        if isinstance(argument.value, cst.Name) and argument.value.value == "None":
            self._drop(job, None)
            return
        if argument.keyword is None and not re.search("exec", _code(argument.value), re.IGNORECASE):
            self._report(
                call,
                "the first argument of Job was the executor and is now the heartrate",
                f"write heartrate=..., or {_PASS}",
            )
            return
        runners = [runner for runner in self.facts.runners.values() if runner.job is job]
        if not runners and any(_expects_failure(context) for context in job.place.contexts):
            return
        unsure = [r for r in self.facts.runners.values() if isinstance(r.job, Either) and job in r.job.of]
        if job.patched and not names_in(argument.value) & job.fixtures:
            # The patch of Job.executors has hidden this executor all the time.
            self._drop(job, None, pattern="unused executor")
            return
        if problem := self._not_movable(job, argument.value, runners, unsure):
            self._report(call, f"Job gets an executor{problem}", _PASS)
            return
        self._drop(job, runners, pattern="constructor")

    def _not_movable(
        self, job: Job, value: cst.BaseExpression, runners: Sequence[Runner], unsure: Sequence[Runner]
    ) -> str:
        """Return why the executor cannot become an argument of the runners; empty if it can."""
        assert job.place is not None
        if unsure:
            return ", but the runner may be for another Job"
        if not runners:
            return ", and no SchedulerJobRunner is made for it here"
        if len(runners) > 1 and not is_simple(value):
            return ", which more than one SchedulerJobRunner would make for itself"
        if _contains(value, (cst.NamedExpr, cst.Await, cst.Yield)):
            return " in an expression that cannot be evaluated elsewhere"
        for runner in runners:
            assert runner.call is not None
            assert runner.place is not None
            keywords = {a.keyword.value for a in runner.call.args if a.keyword}
            if "executors" in keywords:
                return ", and its SchedulerJobRunner gets executors, too"
            if any(a.star for a in runner.call.args):
                return ", and its SchedulerJobRunner may get executors, too, by * or **"
            if runner.place.function is not job.place.function:
                return ", and its SchedulerJobRunner is made in another function"
            if any(runner.versions.get(n, frozenset()) != v for n, v in job.versions.items()):
                return " of a name that stands for something else where the SchedulerJobRunner is made"
            if not is_simple(value):
                if runner.place.loops != job.place.loops:
                    return ", which a loop would make anew for each SchedulerJobRunner"
                if runner.place.contexts != job.place.contexts:
                    return ", which would be made in another context manager, with the SchedulerJobRunner"
        return ""

    def _drop(self, job: Job, runners: Sequence[Runner] | None, pattern: str = "constructor") -> None:
        """Take the executor from the Job, and give it to the runners if there are any."""
        call, index = job.call, job.executor
        assert call is not None
        assert index is not None
        argument = call.args[index]
        smaller = _job_without(call, index)
        lost = edit.comments(call)
        lost.subtract(edit.comments(smaller))
        if runners:
            lost.subtract(edit.comments(argument.value))
        texts = [text for text, number in lost.items() if number > 0]
        statement = self.facts.statements.get(call)
        if texts:
            if not hasattr(statement, "leading_lines"):
                self._report(call, "Job gets an executor, with comments beside it", _PASS)
                return
            assert statement is not None
            self.plan_.edits.add(statement, lambda node: edit.with_comments(node, texts))
        self.plan_.edits.add(call, lambda node: _job_without(node, index))  # type: ignore[arg-type]
        for runner in runners or ():
            assert runner.call is not None
            self.plan_.edits.add(runner.call, lambda node: self._with_executors(node, argument.value))
        self.moved.add(job)
        self._count(pattern)

    def _with_executors(self, node: cst.CSTNode, value: cst.BaseExpression) -> cst.CSTNode:
        assert isinstance(node, cst.Call)
        made = self.plan_.edits.moved(value)
        assert isinstance(made, cst.BaseExpression)
        return edit.with_argument(node, "executors", cst.List([cst.Element(made)]))

    # job.executor, job.executors

    def _use(self, use: Use) -> None:
        verdict = self._is_job(use)
        kind = use.node.attr.value
        if verdict is None:
            return
        if verdict:
            self._report(use.node, f"{_code(use.node)} is read, and {verdict}", _ASK)
        elif isinstance(use.base, Ref):
            self._report(
                use.node,
                f"Job.{kind} is used as an attribute of the class",
                "use ExecutorLoader.init_executors",
            )
        elif use.context == "store":
            self._report(
                use.node,
                f"{_code(use.node)} is set",
                f"{_PASS}, or set both of its attributes, executors and executor",
            )
        elif use.context in ("delete", "change"):
            self._report(
                use.node,
                f"{_code(use.node)} is changed in place, which the executor of a runner does not follow",
                "change executors and executor of the SchedulerJobRunner",
            )
        elif use.via is not None:
            self.plan_.edits.add(
                use.node,
                lambda node: node.with_changes(value=node.value.value),  # type: ignore[attr-defined]
            )
            self._count("read")
        elif place := self._runner_of(use):
            self._redirect(use, place)
        elif value := self._same_executor(use):
            made = value if kind == "executor" else cst.List([cst.Element(value)])
            self.plan_.edits.add(use.node, lambda node: made.deep_clone())
            self._count("read")
        elif not self._move_behind_runner(use):
            runners = self._runners_for(use.base)
            why = (
                "with none that is sure to be the right one"
                if any(r.place and r.place.order < use.place.order for r in runners)
                else "with no name for its SchedulerJobRunner there yet"
                if runners
                else "and no SchedulerJobRunner is made for it here"
            )
            self._report(use.node, f"{_code(use.node)} is read, {why}", _ASK)

    def _redirect(self, use: Use, place: str) -> None:
        self.plan_.edits.add(use.node, lambda node: node.with_changes(value=cst.parse_expression(place)))
        if source := dotted(use.node.value):
            self.renamed[use.place.function][source].add(place)
        self._count("read")

    def _is_job(self, use: Use) -> str | None:
        """Return empty text if it is a Job, a text that says what is not certain, ``None`` if it is none."""
        found = alternatives(use.base)
        if is_class(use.base, JOB) or all(isinstance(one, Job) for one in found):
            return ""
        if self._runners_for(use.base):
            return ""
        if any(isinstance(one, Job) or is_class(one, JOB) for one in found):
            return "it may be of a Job or of something else"
        if any(isinstance(one, Other) and one.may_be_job for one in found):
            return "a listener may be given the Job of a scheduler"
        if not any(isinstance(one, Other) and not one.foreign for one in found):
            return None
        path = dotted(use.node.value) or ""
        about_jobs = any(name.startswith("airflow.jobs") for name in self.facts.modules)
        airflow = about_jobs or any(
            re.match(r"(airflow|tests_common)\b", name) for name in self.facts.modules
        )
        if (about_jobs and re.search(r"(^|\.|_)job$", path)) or (
            airflow and re.search(r"(^|\.)(scheduler_job|\w*runner\.job)$", path)
        ):
            return "it is not known whether that is a Job"
        return None

    def _runners_for(self, job: Value) -> list[Runner]:
        return [runner for runner in self.facts.runners.values() if runner.job == job]

    def _runner_of(self, use: Use) -> str | None:
        """Return the name under which the runner can be had where the executor is read."""
        fitting = {
            name: value
            for name, value in use.runners
            if name != "_"
            and all(isinstance(one, Runner) and one.job == use.base for one in alternatives(value))
        }
        different = {one for value in fitting.values() for one in alternatives(value)}
        if not fitting:
            return None
        if len(different) > 1 and len({id(value) for value in fitting.values()}) > 1:
            jobs = [one for one in alternatives(use.base) if isinstance(one, Job)]
            if not (len(jobs) == 1 and jobs[0] in self.moved and self._executor_of(jobs[0])):
                return None
        return list(fitting)[-1]

    @staticmethod
    def _executor_of(job: Job) -> cst.BaseExpression | None:
        if job.call is None or job.executor is None:
            return None
        value = job.call.args[job.executor].value
        return value if is_simple(value) else None

    def _same_executor(self, use: Use) -> cst.BaseExpression | None:
        """Return the name that was given to the Job, if it still stands for the same."""
        if not isinstance(use.base, Job) or use.base.place is None:
            return None
        value = self._executor_of(use.base)
        if value is None or use.base.patched or use.base.place.function is not use.place.function:
            return None
        if any(use.env.versions.get(name, frozenset()) != v for name, v in use.base.versions.items()):
            return None
        return value

    # job.executor.x = ... before there is a runner

    def _move_behind_runner(self, use: Use) -> bool:
        """Have the statement moved behind the one that makes the runner, if nothing between can tell."""
        runners = [
            r
            for r in self._runners_for(use.base)
            if r.place is not None
            and r.place.function is use.place.function
            and r.place.order > use.place.order
        ]
        if len(runners) != 1:
            return False
        place = runners[0].place
        assert place is not None
        (*outer, (block, at)), (*outer_use, (block_use, start)) = place.position, use.place.position
        if block is not block_use or outer != outer_use:
            return False
        body = block.body  # type: ignore[attr-defined]
        name = _target(body[at], runners[0])
        source = dotted(use.node.value)
        if name is None or source is None:
            return False
        if not all(_sets_attribute(body[i], source) for i in range(start, at)):
            return False
        self._redirect(use, name)
        self._count("moved statement")
        self.moves[block][body[at]].append(start)
        return True

    def _move_statements(self) -> None:
        for block, targets in self.moves.items():
            body = list(block.body)  # type: ignore[attr-defined]
            moving = {index for indices in targets.values() for index in indices}
            order = []
            for index, statement in enumerate(body):
                if index not in moving:
                    order.append(index)
                if statement in targets:
                    order += sorted(set(targets[statement]))
            self.plan_.edits.add(block, lambda node, order=order: edit.reordered(node, order))  # type: ignore[misc]

    # Comments, and calls that name the attribute

    def _comments(self) -> None:
        for function, sources in self.renamed.items():
            for source, names in sources.items():
                if len(names) == 1:
                    self._comments_of(function, source, next(iter(names)))

    def _comments_of(self, function: cst.CSTNode, source: str, name: str) -> None:
        pattern = re.compile(rf"(?<![\w.]){re.escape(source)}(?=\.executors?\b)")
        plan = self.plan_

        class Comments(cst.CSTVisitor):
            def visit_Comment(self, node: cst.Comment) -> None:
                changed = pattern.sub(name, node.value)
                if changed != node.value:
                    plan.edits.add(node, lambda comment: comment.with_changes(value=changed))
                    plan.counts["comment"] += 1

        function.visit(Comments())

    def _named(self, call: cst.Call, value: Value) -> None:
        self._report(
            call,
            f"{_code(call.func)} is given a Job and the name of its attribute",
            "give it the SchedulerJobRunner",
        )


def _job_without(call: cst.Call, index: int) -> cst.Call:
    """Return the call of Job without its executor, and with what was its second argument by name."""
    positional = call.args[index].keyword is None
    smaller = edit.without_argument(call, index)
    if positional and smaller.args and smaller.args[0].keyword is None and not smaller.args[0].star:
        named = smaller.args[0].with_changes(
            keyword=cst.Name("heartrate"),
            equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
        )
        smaller = smaller.with_changes(args=(named, *smaller.args[1:]))
    return smaller


def _expects_failure(context: cst.CSTNode) -> bool:
    """Return whether it is ``with pytest.raises(...)`` or the like."""
    return isinstance(context, cst.With) and any(
        isinstance(item.item, cst.Call) and last_name(item.item.func) in ("raises", "assertRaises")
        for item in context.items
    )


def _code(node: cst.CSTNode) -> str:
    return " ".join(cst.Module([]).code_for_node(node).split())


def _target(statement: cst.CSTNode, runner: Runner) -> str | None:
    """Return the name that a statement gives to the runner which it makes."""
    if not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) != 1:
        return None
    assign = statement.body[0]
    if not isinstance(assign, cst.Assign | cst.AnnAssign) or assign.value is not runner.call:
        return None
    target = assign.targets[0].target if isinstance(assign, cst.Assign) else assign.target
    name = dotted(target)
    return None if name == "_" else name


def _sets_attribute(statement: cst.CSTNode, name: str) -> bool:
    """Return whether the statement does no more than set an attribute of what has this name to a literal."""
    if not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) != 1:
        return False
    assign = statement.body[0]
    return (
        isinstance(assign, cst.Assign)
        and len(assign.targets) == 1
        and (dotted(assign.targets[0].target) or "").startswith(name + ".")
        and (
            is_simple(assign.value)
            or isinstance(assign.value, cst.Float | cst.UnaryOperation)
            or _is_plain_call(assign.value)
        )
    )


def _is_plain_call(node: cst.BaseExpression) -> bool:
    """Return whether it makes something new of literals and names only."""
    return isinstance(node, cst.Call) and all(
        not a.star and (is_simple(a.value) or isinstance(a.value, cst.Float)) for a in node.args
    )
