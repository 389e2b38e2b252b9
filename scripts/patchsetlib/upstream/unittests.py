# SPDX-License-Identifier: Apache-2.0
"""
Upstream's own unit tests on a full checkout: the base against the base with the series.

Each side has a worktree and an environment of its own. One runs after the other, and each distribution of
the monorepo in one process with an ``AIRFLOW_HOME`` of its own: its tests share a database, some listen on
fixed ports, and the settings of two distributions contradict each other.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches.base import Base
from patchsetlib.shell import processes, ui
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display, new_directory, work_dir
from patchsetlib.upstream import environment, trees

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
# Seconds for a whole run, many times what it needs, and those that upstream's CI gives a single test.
LIMIT = 3600.0
TEST_LIMIT = 60
# How often a test that fails is run again; one that then passes is flaky, which is no difference.
RERUNS = 2

# Workers of stock's LocalExecutor can wait forever for a lock that one of them, killed by a test, has held;
# the interpreter would join them at its exit.
_PYTEST = "import os, sys, pytest; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Results:
    """What the tests of one side came to; a node id is the path in the monorepo, ``::``, and the test."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """Node id of a test, or of a module that fails, to ``passed``, ``failed`` or ``skipped``."""
    messages: dict[str, str] = field(default_factory=dict)
    """Of those that failed: the first line of what they say."""
    flaky: list[str] = field(default_factory=list)
    """Those that failed first, and passed when they were run again."""


@dataclass(frozen=True)
class Comparison:
    """What the patches change; all lists hold node ids."""

    newly_failing: list[str]
    newly_passing: list[str]
    gone: dict[str, list[str]]
    """Tests that only the base has: to the subjects of the patches that change their file."""

    @property
    def good(self) -> bool:
        """Whether nothing newly fails, and nothing is gone without a patch that changes its file."""
        return not self.newly_failing and all(self.gone.values())


def compare(
    base: Mapping[str, str], patched: Mapping[str, str], changed_by: Mapping[str, list[str]]
) -> Comparison:
    """
    Compare the outcomes of the base with those of the patched tree.

    :param changed_by: path of a file to the subjects of the patches that change it
    """

    def newly(outcome: str) -> list[str]:
        return [test for test, now in patched.items() if now == outcome != base.get(test)]

    gone = {test: changed_by.get(test.partition("::")[0], []) for test in base if test not in patched}
    return Comparison(newly(FAILED), [test for test in newly(PASSED) if base.get(test) == FAILED], gone)


def read_report(report: Path, distribution: str, results: Results) -> int | None:
    """
    Add what ``report``, written by pytest-reportlog, says.

    :param distribution: directory of the monorepo, which may be what pytest took for the root of its node ids
    :return: pytest's exit code; None if the report ends before pytest has
    """
    outcomes: dict[str, str] = {}
    messages: dict[str, str] = {}
    repeated: set[str] = set()
    exit_code = None
    for line in report.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        outcome, test = entry.get("outcome"), entry.get("nodeid", "")
        if not Path(test).is_relative_to(distribution):
            test = f"{distribution}/{test}"
        if entry["$report_type"] == "SessionFinish":
            exit_code = entry["exitstatus"]
        elif outcome == FAILED:
            outcomes[test] = FAILED
            messages[test] = _first_line(entry["longrepr"])
        elif outcome == "rerun":
            repeated.add(test)
        elif entry["$report_type"] == "TestReport" and (entry["when"] == "setup" or outcome == SKIPPED):
            # Each attempt begins with the setup, so the last attempt decides.
            outcomes[test] = outcome
    results.outcomes.update(outcomes)
    results.messages.update({test: text for test, text in messages.items() if outcomes[test] == FAILED})
    results.flaky.extend(sorted(test for test in repeated if outcomes.get(test) == PASSED))
    return exit_code


def _first_line(representation: str | dict) -> str:
    if isinstance(representation, dict):
        crash = representation.get("reprcrash") or {}
        representation = crash.get("message") or str(representation.get("longrepr", ""))
    return (representation.strip().splitlines() or [""])[0]


def run(
    base: Base,
    clone: Path,
    revision: str | None,
    python_version: str | None,
    paths: Sequence[str],
    expression: str | None,
) -> int:
    """
    Run upstream's unit tests with and without the series, print what differs, and return the exit code.

    :param clone: of apache/airflow; its worktree, branches and tags stay as they are
    :param revision: commit to run them at, with the series moved there; that of the base if None
    :param python_version: as for ``uv venv --python``
    :param paths: tests to run; empty: ``PATHS``, and the test modules that the series changes
    :param expression: as for pytest's ``-k``
    :raises UsageError: if there are no such tests
    :raises PatchsetError: if the series does not apply there, or pytest does not get to its end
    """
    start = clones.resolve(clone, base, revision)
    with trees.scratch(clone) as directory:
        sides = {name: directory / name for name in ("base", "patched")}
        with ui.step(f"placing the patches of {base.name} on {start[:12]}"):
            applied = trees.place_series(base, clone, start, sides["patched"])
            git("worktree", "add", "--quiet", "--detach", sides["base"], start, cwd=clone)
        changed_by: dict[str, list[str]] = {}
        for patch in (entry.patch for entry in applied):
            for file in patch.files:
                changed_by.setdefault(file, []).append(patch.subject)
        chosen = _chosen(list(sides.values()), start, paths)
        raw = new_directory(work_dir() / "upstream" / "tests")
        found = {}
        for name, tree in sides.items():
            python = environment.install(base, tree, start, directory / f"{name}-python", python_version)
            with ui.step(f"running upstream's unit tests on {name}"):
                found[name] = _run_side(tree, python, chosen, expression, raw)
    if not any(results.outcomes for results in found.values()):
        raise UsageError("no test was chosen", "see -k and --paths")
    compared = compare(found["base"].outcomes, found["patched"].outcomes, changed_by)
    about = {"base": base.name, "commit": start, "patches": [entry.commit for entry in applied]}
    _write(raw / "results.json", about, found, compared)
    print(f"upstream's unit tests at {start[:12]}, without and with {len(applied)} patches of {base.name}")
    print(summary(found["base"], found["patched"], compared))
    print(raw / "results.json")
    return 0 if compared.good else 1


def _chosen(sides: Sequence[Path], start: str, paths: Sequence[str]) -> list[str]:
    """
    Return the paths to run.

    :param sides: the trees of the base and of the series
    """
    missing = [
        path
        for path in paths or PATHS
        if path.startswith("/") or not any((tree / path.partition("::")[0]).exists() for tree in sides)
    ]
    if paths and missing:
        raise UsageError(f"no such tests: {missing[0]}", f"give paths of the monorepo, e.g. {PATHS[0]}")
    if missing:
        ui.warn(f"{start[:12]} has no {', '.join(missing)}")
    modules = (start, "HEAD", "--", ":(glob)**/tests/**/test_*.py")
    changed = git("diff", "--name-only", "--no-renames", "-z", *modules, cwd=sides[1]).split("\0")[:-1]
    return list(paths) or [
        *(path for path in PATHS if path not in missing),
        *(file for file in changed if not any(Path(file).is_relative_to(path) for path in PATHS)),
    ]


def _run_side(tree: Path, python: Path, chosen: Sequence[str], expression: str | None, raw: Path) -> Results:
    """
    Run the tests of one side.

    :param chosen: paths or node ids in the monorepo; those that ``tree`` lacks are left out
    :param raw: directory for logs and reports
    :raises PatchsetError: if pytest does not get to its end
    """
    tests: dict[str, list[Path]] = {}
    for path in chosen:
        if (tree / path.partition("::")[0]).exists():
            parents = Path(path.partition("::")[0]).parents
            distribution = next(parent for parent in parents if (tree / parent / "pyproject.toml").is_file())
            tests.setdefault(str(distribution), []).append(tree / path)
    results = Results()
    for distribution, paths in tests.items():
        name = f"{tree.name}-{distribution.replace('/', '-')}"
        log, report, home = raw / f"{name}.log", raw / f"{name}.jsonl", tree.with_name(f"{name}-home")
        home.mkdir()
        command = [
            *(python, "-c", _PYTEST, "--color=no", "--continue-on-collection-errors"),
            *("-p", "no:cacheprovider", "--report-log", report, "--basetemp", home / "tmp"),
            *("--reruns", str(RERUNS), "--with-db-init"),
            *(f"--{phase}-timeout={TEST_LIMIT}" for phase in ("setup", "execution", "teardown")),
            *(["-k", expression] if expression else []),
            *paths,
        ]
        variables = environment.variables(python) | {"AIRFLOW_HOME": str(home), "AIRFLOW_SOURCES": str(tree)}
        try:
            processes.run(command, env=variables, cwd=tree / distribution, log=log, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            problem = f"the unit tests hang: no end in {LIMIT:.0f} s"
            raise PatchsetError(problem, f"see {display(log)}") from None
        code = read_report(report, distribution, results) if report.exists() else None
        if code not in (0, 1, 5):  # 5: no test was chosen
            raise PatchsetError(
                f"pytest did not run all tests of {name}: "
                + ("it ended without a report" if code is None else f"exit code {code}"),
                f"see {display(log)}",
            )
    return results


def summary(base: Results, patched: Results, compared: Comparison) -> str:
    """Return what is to be said about the two runs, as plain text."""
    before, after = (Counter(results.outcomes.values()) for results in (base, patched))
    lines = [f"{'':<9}{'base':>8}{'patched':>9}"]
    lines += [f"{name:<9}{before[name]:>8}{after[name]:>9}" for name in (PASSED, FAILED, SKIPPED)]
    lines.append(f"{'flaky':<9}{len(base.flaky):>8}{len(patched.flaky):>9}  (passed when run again)")
    reasons = {
        test: f"changed by {', '.join(map(repr, subjects))}" if subjects else "no patch changes its file"
        for test, subjects in compared.gone.items()
    }
    for title, tests, notes in (
        ("newly failing", compared.newly_failing, patched.messages),
        ("newly passing", compared.newly_passing, {}),
        ("gone", compared.gone, reasons),
    ):
        lines.append(f"{title}: {len(tests)}")
        lines += [f"  {test}: {notes[test]}" if notes.get(test) else f"  {test}" for test in tests]
    return "\n".join(lines)


def _write(file: Path, about: dict, found: Mapping[str, Results], compared: Comparison) -> None:
    """Write all results as JSON."""
    data = about | {
        "machine": platform.platform(),
        "counts": {name: Counter(results.outcomes.values()) for name, results in found.items()},
        **vars(compared),
        **{
            part: {name: getattr(results, part) for name, results in found.items()}
            for part in ("outcomes", "messages", "flaky")
        },
    }
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
