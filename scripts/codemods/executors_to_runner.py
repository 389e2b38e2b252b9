# SPDX-License-Identifier: Apache-2.0
"""
Move code from ``Job(executor=X)`` and ``job.executor`` to SchedulerJobRunner, which has the executors now.

For tests of Airflow, of providers, and of whoever makes a scheduler in code. What is not certain is left as
it is and reported. Needs LibCST; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    # A script has only its own directory to import from.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from codemods import edits, files, rules
from codemods.files import BadInput
from patchsetlib.shell.errors import PatchsetError

__all__ = ["BadInput", "Report", "Result", "main", "rewrite", "rewrite_text"]

# Extended regular expressions that all match a line of any file with something to change, so that whoever has
# the files in git need not read the others; see files.read().
WORDS = ("executors?", "[Jj]ob|component")
_MAX_ROUNDS = 10

WORDS = ("executor", "[Jj]ob|component")
"""Extended regular expressions; each one matches a line of every file that may have something to change."""


@dataclass(frozen=True, order=True)
class Report:
    """Something that was left as it is, because it is not certain what it has to become."""

    path: Path
    line: int
    """In the file as it is now."""
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}; {self.remedy}"


@dataclass
class Result:
    """What was changed, or would be."""

    counts: dict[Path, Counter[str]] = field(default_factory=dict)
    """For each changed file how many changes of each pattern."""
    reports: list[Report] = field(default_factory=list)

    @property
    def changed(self) -> list[Path]:
        """The changed files, sorted."""
        return sorted(self.counts)


def rewrite(paths: Iterable[Path | str], *, check: bool = False) -> Result:
    """
    Rewrite files, and all ``*.py`` below directories. Doing it again changes nothing more.

    :param check: write nothing; the result is what would be changed, the lines those of the files as they are
    :raises BadInput: if a path does not exist, or a file is not valid Python or cannot be written; then
        nothing was written
    """
    result = Result()
    changes: dict[Path, bytes] = {}
    found: dict[Path, list[Report]] = {}
    words = [re.compile(word.encode()) for word in WORDS]
    for path in files.find(paths):
        before, module = files.read(path, words)
        if module is None:
            continue
        after, counts, reports = _rewrite(path, before, module)
        found[path] = _reports(path, module, rules.plan(module)) if check and reports else reports
        if after != before:
            changes[path] = after
            result.counts[path] = counts
    if not check:
        files.write(changes)
        for path in changes:
            if found[path]:
                # The lines after formatting.
                module = files.parse(path, path.read_bytes())
                found[path] = _reports(path, module, rules.plan(module))
    result.reports = sorted(report for reports in found.values() for report in reports)
    return result


def rewrite_text(text: str, path: Path | str = "<text>") -> tuple[str, Counter[str], list[Report]]:
    """
    Return the text after the change, how many changes of each pattern, and what is left to do.

    :raises BadInput: if it is not valid Python
    """
    data = text.encode()
    after, counts, reports = _rewrite(Path(path), data, files.parse(Path(path), data))
    return after.decode(), counts, reports


def _rewrite(path: Path, before: bytes, module: cst.Module) -> tuple[bytes, Counter[str], list[Report]]:
    counts: Counter[str] = Counter()
    for _ in range(_MAX_ROUNDS):
        plan = rules.plan(module)
        if not plan.edits:
            return (module.bytes if counts else before), counts, _reports(path, module, plan)
        counts += plan.counts
        changed = module.visit(plan.edits)
        assert isinstance(changed, cst.Module)
        module = cst.parse_module(edits.without_unused(changed, plan.unused).bytes)
    raise AssertionError(f"{path}: the changes do not come to an end")


def _reports(path: Path, module: cst.Module, plan: rules.Plan) -> list[Report]:
    if not plan.findings:
        return []
    positions = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    return sorted(
        Report(path, positions[finding.node].start.line, finding.problem, finding.remedy)
        for finding in plan.findings
    )


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}es" if word.endswith("ch") else f"{word}s"


def lines(result: Result) -> list[str]:
    """Return what is said of a result: a line for each changed file, and one for each report."""
    said = []
    for path in result.changed:
        counted = ", ".join(
            f"{number} {_plural(pattern, number)}" for pattern, number in sorted(result.counts[path].items())
        )
        said.append(f"{path}: {counted}")
    return [*said, *map(str, result.reports)]


def exit_code(result: Result, check: bool) -> int:
    """Return 0 if all was handled, 1 if something is left to do."""
    return 1 if result.reports or (check and result.counts) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 if something is left to do, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="executors_to_runner.py",
        description="Move code from Job(executor=X) and job.executor to SchedulerJobRunner(executors=[X]).",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file, or a directory with all below it")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail if something would be changed or is left to do",
    )
    args = parser.parse_args(argv)
    try:
        result = rewrite(args.paths, check=args.check)
    except PatchsetError as e:
        print(f"{parser.prog}: {e}", file=sys.stderr)
        return 2
    for line in lines(result):
        print(line)
    return exit_code(result, args.check)


if __name__ == "__main__":
    sys.exit(main())
