# SPDX-License-Identifier: Apache-2.0
"""
Upstream's own unit tests on a full checkout: the base against the base with the series.

Each side has a worktree, an ``AIRFLOW_HOME`` and a database of its own; the environment is the same. The two
run one after the other, each in one process: tests of a side share its database, and some listen on fixed
ports.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from patchsetlib.patches import clone as clones
from patchsetlib.patches import moving, worktrees
from patchsetlib.patches.base import Base
from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display, new_directory, work_dir
from patchsetlib.upstream import environment as upstreamenv
from patchsetlib.upstream.testing import changed_files

TESTS = "airflow-core/tests/unit"
# Where Job, the runner of the scheduler, and the executors are made or read.
PATHS = (
    f"{TESTS}/executors",
    f"{TESTS}/jobs",
    f"{TESTS}/cli/commands/test_jobs_command.py",
    f"{TESTS}/cli/commands/test_scheduler_command.py",
    f"{TESTS}/api_fastapi/core_api/routes/public/test_job.py",
    f"{TESTS}/api_fastapi/core_api/routes/public/test_monitor.py",
)
# Seconds for a whole run: many times what it needs. And seconds that upstream's CI gives a single test.
LIMIT = 3600.0
TEST_LIMIT = 60
# Tests that fail and are run again, each alone. If there are more, they are not flaky: something is broken.
AGAIN = 20

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Result:
    """What one test came to."""

    outcome: str
    message: str = ""
    """First line of what a failing one says."""


Results = Mapping[str, Result]
"""Node id, as pytest takes it, to result."""


@dataclass
class Comparison:
    """What differs between two runs; all lists hold node ids."""

    newly_failing: list[str] = field(default_factory=list)
    failing_on_both: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)
    """Failed on patched, then passed there alone and with its module."""
    newly_passing: list[str] = field(default_factory=list)
    newly_skipped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    """Tests that only patched has, and that do not fail."""
    gone: dict[str, list[str]] = field(default_factory=dict)
    """Tests that only the base has: to the subjects of the patches that change their file."""

    @property
    def unexplained(self) -> list[str]:
        """Tests that are gone although no patch changes their file."""
        return [test for test, subjects in self.gone.items() if not subjects]

    @property
    def good(self) -> bool:
        """Whether nothing newly fails, and no test has vanished."""
        return not self.newly_failing and not self.unexplained


def compare(
    base: Results,
    patched: Results,
    alone: Callable[[list[str]], tuple[Results, Results]],
    together: Callable[[list[str]], Results],
    changed_by: Callable[[str], list[str]],
) -> Comparison:
    """
    Say what the patches change in the results of the tests.

    A test that fails on patched is run again: first alone on both sides; if it then passes on patched, with
    its module there. What fails again, and does not fail on the base in the same way, fails newly.

    :param alone: runs tests again, each alone, and returns the results of base and patched
    :param together: runs modules again on patched
    :param changed_by: subjects of the patches that change a file
    """
    result = Comparison()
    failing = [test for test in patched if patched[test].outcome == FAILED]
    again: tuple[Results, Results] = alone(failing) if 0 < len(failing) <= AGAIN else ({}, {})
    passed_alone = [t for t in failing if _outcome(again[1], t) == PASSED and _outcome(base, t) != FAILED]
    modules = sorted({test.partition("::")[0] for test in passed_alone})
    repeated = together(modules) if modules else {}
    for test in failing:
        alone_base, alone_patched = (_outcome(side, test) for side in again)
        if _outcome(base, test) == FAILED:
            newly = alone_base == PASSED and alone_patched != PASSED
            (result.newly_failing if newly else result.failing_on_both).append(test)
        elif test in passed_alone and _outcome(repeated, test) == PASSED:
            result.flaky.append(test)
        else:
            result.newly_failing.append(test)
    for test, now in patched.items():
        before = _outcome(base, test)
        if now.outcome == FAILED:
            continue
        if before is None:
            result.new.append(test)
        elif now.outcome == PASSED and before == FAILED:
            result.newly_passing.append(test)
        elif now.outcome == SKIPPED and before != SKIPPED:
            result.newly_skipped.append(test)
    result.gone = {test: changed_by(test.partition("::")[0]) for test in base if test not in patched}
    return result


def _outcome(results: Results, test: str) -> str | None:
    return results[test].outcome if test in results else None


def read_report(report: Path, tree: Path) -> dict[str, Result]:
    """
    Return the results that pytest has written as JUnit XML.

    :param tree: where the tests are, to tell modules from classes
    """
    found: dict[str, Result] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        test = _node_id(case.attrib["classname"], case.attrib["name"], tree)
        bad = [entry for entry in case if entry.tag in ("failure", "error")]
        outcome = FAILED if bad else SKIPPED if case.find("skipped") is not None else PASSED
        # A test whose teardown fails is there twice.
        if test not in found or found[test].outcome != FAILED:
            message = bad[0].get("message", "").strip().splitlines() if bad else []
            found[test] = Result(outcome, message[0] if message else "")
    return found


def _node_id(classname: str, name: str, tree: Path) -> str:
    # A module that cannot be collected has its dotted name as the name, and no class.
    parts = classname.split(".") if classname else name.split(".")
    for count in range(len(parts), 0, -1):
        module = "/".join(parts[:count]) + ".py"
        if (tree / module).is_file():
            return "::".join([module, *parts[count:], *([name] if classname else [])])
    return f"{classname}::{name}".lstrip(":")


@dataclass(frozen=True)
class Side:
    """One of the two: a tree, and where what is run there leaves its files."""

    name: str
    tree: Path
    commit: str
    scratch: Path
    environment: upstreamenv.Environment

    def existing(self, paths: Iterable[str]) -> list[str]:
        """Return those of ``paths`` that this tree has."""
        return [path for path in paths if (self.tree / path.partition("::")[0]).exists()]

    def run(self, label: str, tests: Sequence[str], options: Sequence[str] = ()) -> dict[str, Result]:
        """
        Run tests and return their results.

        :param label: name for log and report, not used before
        :param tests: paths or node ids in the monorepo; those that do not exist are left out
        :raises PatchsetError: if pytest does not get to its end
        """
        tests = self.existing(tests)
        if not tests:
            return {}
        home = self.scratch / f"{self.name}-home"
        first = not home.exists()
        home.mkdir(parents=True, exist_ok=True)
        log, report = self.scratch / f"{self.name}-{label}.log", self.scratch / f"{self.name}-{label}.xml"
        command = [
            *(self.environment.python, "-m", "pytest", "-c", self.tree / "pyproject.toml"),
            *("--rootdir", self.tree, "--color=no", "--continue-on-collection-errors"),
            # Not what upstream repeats until it passes: what is flaky is to be seen.
            *("-p", "no:rerunfailures", "-p", "no:cacheprovider"),
            *("--basetemp", self.scratch / f"{self.name}-tmp", "--junit-xml", report),
            *(f"--{phase}-timeout={TEST_LIMIT}" for phase in ("setup", "execution", "teardown")),
            *(["--with-db-init"] if first else []),
            *(*options, *tests),
        ]
        variables = self.environment.variables(self.tree, home)
        try:
            done = processes.run(command, env=variables, cwd=self.tree, log=log, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise PatchsetError(
                f"the unit tests hang on {self.name}: no end in {LIMIT:.0f} s", f"see {display(log)}"
            ) from None
        if done.returncode == 5:  # no test was chosen
            return {}
        if done.returncode not in (0, 1) or not report.exists():
            raise PatchsetError(
                f"pytest ended with exit code {done.returncode} on {self.name}, before it had run all tests",
                f"see {display(log)}",
            )
        return read_report(report, self.tree)


def run(
    base: Base,
    clone: Path,
    revision: str | None,
    python_version: str | None,
    paths: Sequence[str],
    expression: str | None,
) -> tuple[Comparison, str, Path]:
    """
    Run upstream's unit tests with and without the series, and compare.

    :param clone: of apache/airflow; its worktree, branches and tags stay as they are
    :param revision: commit to run them at, with the series moved there; that of the base if None
    :param python_version: as for ``interpreters.choose``
    :param paths: tests to run; empty: ``PATHS``, and the test modules that the series changes
    :param expression: as for pytest's ``-k``
    :return: what differs, the same as text, and the file with all results
    :raises UsageError: if there are no such tests
    :raises PatchsetError: if the series cannot be moved there, or pytest does not get to its end
    """
    if revision is None:
        clones.verify(base, clone)
    start = moving.resolve(clone, revision or base.commit, base)
    with worktrees.scratch() as trees:
        with ui.step(f"placing the patches of {base.name} on {start[:12]}"):
            placed = moving.place_series(base, clone, start, trees / "patched")
            stock = worktrees.add(clone, start, trees / "base")
        tip = placed.commits[-1] if placed.commits else start
        chosen = _chosen(stock, placed.tree, start, tip, paths)
        environment = upstreamenv.prepare(base, stock, start, python_version)
        raw = new_directory(work_dir() / "upstream" / "tests")
        sides = (
            Side("base", stock, start, raw, environment),
            Side("patched", placed.tree, tip, raw, environment),
        )
        for side in sides:
            upstreamenv.add_generated(side.tree, environment, raw / "generated.log")
        before, after, compared = _run_both(*sides, chosen, expression)
    about = {"base": base.name, "commit": start, "patches": placed.commits, "python": environment.version}
    file = raw / "results.json"
    write_raw(file, about, before, after, compared)
    title = (
        f"upstream's unit tests at {start[:12]}, Python {environment.version}: "
        f"without and with {len(placed.commits)} patches of {base.name}"
    )
    return compared, f"{title}\n{summary(before, after, compared)}", file


def _chosen(base: Path, patched: Path, start: str, tip: str, paths: Sequence[str]) -> list[str]:
    """Return what to run, given the two trees and their commits."""

    def exists(path: str) -> bool:
        inside = not path.startswith("/") and ".." not in path.split("/")
        return inside and any((tree / path.partition("::")[0]).exists() for tree in (base, patched))

    missing = [path for path in paths or PATHS if not exists(path)]
    if paths:
        if missing:
            raise UsageError(f"no such tests: {missing[0]}", f"give paths of the monorepo, e.g. {PATHS[0]}")
        return list(paths)
    if missing:
        ui.warn(f"{start[:12]} has no {', '.join(missing)}")
    changed = changed_files(patched, start, tip, f":(glob){TESTS}/**/test_*.py")
    return [*PATHS, *(file for file in changed if not any(Path(file).is_relative_to(path) for path in PATHS))]


def _run_both(
    base: Side, patched: Side, chosen: Sequence[str], expression: str | None
) -> tuple[Results, Results, Comparison]:
    options = ["-k", expression] if expression else []
    results = []
    for side in (base, patched):
        with ui.step(f"running upstream's unit tests on {side.name}"):
            results.append(side.run("all", chosen, options))
    if not any(results):
        raise UsageError("no test was chosen", "see -k and --paths")

    def alone(tests: list[str]) -> tuple[Results, Results]:
        again: tuple[dict, dict] = ({}, {})
        with ui.step(f"running {len(tests)} tests that failed again, each alone"):
            for number, test in enumerate(tests, start=1):
                for side, before, found in zip((base, patched), results, again, strict=True):
                    if test in before:
                        found.update(side.run(f"alone-{number}", [test]))
        return again

    def together(modules: list[str]) -> Results:
        with ui.step("running again the modules of tests that failed and pass alone"):
            return patched.run("modules", modules)

    def changed_by(file: str) -> list[str]:
        span = f"{base.commit}..{patched.commit}"
        return git("log", "--reverse", "--format=%s", span, "--", file, cwd=patched.tree).splitlines()

    compared = compare(*results, alone, together, changed_by)
    return results[0], results[1], compared


def counts(results: Results) -> Counter[str]:
    """Return how many tests passed, failed and were skipped."""
    return Counter(result.outcome for result in results.values())


def summary(base: Results, patched: Results, compared: Comparison) -> str:
    """Return what is to be said about the two runs, as plain text."""
    before, after = counts(base), counts(patched)
    lines = [f"{'':<9}{'base':>8}{'patched':>9}"]
    lines += [f"{name:<9}{before[name]:>8}{after[name]:>9}" for name in (PASSED, FAILED, SKIPPED)]

    def listed(title: str, tests: Iterable[str], reasons: Mapping[str, str]) -> None:
        tests = list(tests)
        lines.append(f"{title}: {len(tests)}")
        lines.extend(f"  {test}" + (f": {reasons[test]}" if reasons.get(test) else "") for test in tests)

    messages = {test: result.message for test, result in patched.items()}
    gone = {
        test: f"changed by {', '.join(map(repr, subjects))}" if subjects else "no patch changes its file"
        for test, subjects in compared.gone.items()
    }
    listed("newly failing", compared.newly_failing, messages)
    listed("newly passing", compared.newly_passing, {})
    listed("failing on both", compared.failing_on_both, messages)
    listed("flaky (failed on patched, then passed alone and with its module)", compared.flaky, messages)
    listed("newly skipped", compared.newly_skipped, {})
    listed("gone", compared.gone, gone)
    lines.append(f"new, and not failing: {len(compared.new)}")
    return "\n".join(lines)


def write_raw(
    file: Path, about: Mapping[str, object], base: Results, patched: Results, compared: Comparison
) -> None:
    """Write all results as JSON."""
    tests = {
        test: {"base": _outcome(base, test), "patched": _outcome(patched, test)}
        for test in sorted({*base, *patched})
    }
    data = {
        **about,
        "machine": platform.platform(),
        "counts": {"base": counts(base), "patched": counts(patched)},
        **vars(compared),
        "messages": {test: result.message for test, result in patched.items() if result.message},
        "tests": tests,
    }
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
