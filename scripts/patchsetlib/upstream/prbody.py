# SPDX-License-Identifier: Apache-2.0
"""The description of a pull request, in the form that upstream's template asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.measure import bench, report
from patchsetlib.patches import codemods, series
from patchsetlib.patches.series import Patch
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import ROOT
from patchsetlib.upstream.pullrequest import UPSTREAM, Branch, Commit

TEMPLATE = ".github/PULL_REQUEST_TEMPLATE.md"
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_RULE = re.compile(r"^---[ \t]*$", re.MULTILINE)
_DISCLOSURE = re.compile(r"generative AI|Gen-?AI", re.IGNORECASE)
# For templates of before upstream asked: its rules for pull requests ask for it whatever the template says.
_OWN_DISCLOSURE = """\
### Generative AI

- [ ] Generative AI tooling was used for this change: (name and version)
"""
# The rows of a memory benchmark that are shown: role and figure.
_SHOWN = {
    ("whole tree", "PSS total, MiB"),
    ("scheduler", "PSS per process, MiB"),
    ("workers", "USS per process, MiB"),
}


@dataclass(frozen=True)
class Links:
    """Where files of this repository can be read."""

    address: str
    """Of a directory with its files; a placeholder if it is not known."""

    def __call__(self, path: str) -> str:
        return f"[{path}]({self.address}/{path})"


def describe(branch: Branch, clone: Path, links: Links) -> str:
    """Return the description of the pull request for the patch at the tip of ``branch``, as Markdown."""
    patch = branch.patch
    template = git("show", f"{branch.start}:{TEMPLATE}", cwd=clone, check=False)
    sections = {
        "What and why": unwrapped(patch.body),
        "Builds on": "\n".join(_below(branch)),
        "How it was tested": "\n".join(_tests(branch, clone, links)),
        "Measured effect": _measured(patch, links),
    }
    parts = [_references(patch), *(f"### {title}\n\n{text}" for title, text in sections.items() if text)]
    return "\n\n".join(filter(None, parts)) + f"\n\n{_ending(template)}"


def _references(patch: Patch) -> str:
    """Return what the change is about, in the words that the forge links."""
    issue = f"{UPSTREAM.web}/issues/"
    bugs = patch.trailers.get("Bug", ())
    return "\n".join(f"related: {bug.replace(issue, '#')}" for bug in bugs)


def unwrapped(text: str) -> str:
    """
    Return the body of a commit message as Markdown that a forge shows as it is meant.

    There each line break counts, so what was wrapped is joined. A paragraph that is indented stays as it is.
    """
    paragraphs = []
    for paragraph in re.split(r"\n{2,}", text.strip("\n")):
        if paragraph.startswith("  "):
            paragraphs.append(f"```\n{paragraph}\n```")
        else:
            whole_words = re.sub(r"(?<=\w-)\n *(?=\w)", "", paragraph)
            # Only an item of a list begins a new line.
            paragraphs.append(re.sub(r"\n *(?!- | )", " ", whole_words))
    return "\n\n".join(paragraphs)


def _below(branch: Branch) -> Iterator[str]:
    """Yield what must be merged first, which the pull request shows as well until it is."""
    *below, top = branch.commits
    for commit in below:
        forwarded = commit.patch.trailer("Forwarded") or ""
        where = forwarded if forwarded.startswith("https://") else "no pull request yet"
        yield f"- {commit.patch.subject} ({where})"
    if below:
        yield f"\nTheir commits are on this branch as well. This pull request is the last one, {top.id[:12]}."


def _tests(branch: Branch, clone: Path, links: Links) -> Iterator[str]:
    patch, commit = branch.patch, branch.commits[-1]
    files = tests_of(commit, clone)
    for title, status in (("New", "A"), ("Changed", "M")):
        if names := [f"`{file}`" for file, each in files.items() if each == status]:
            yield f"- {title} tests: {', '.join(names)}"
    for value in patch.trailers.get(codemods.TRAILER, ()):
        codemod = codemods.parse(value)
        program = links(f"scripts/codemods/{codemod.name.replace('-', '_')}.py")
        yield f"- Of what changed, this program has rewritten what it could: {program}"
    if files:
        yield f"- [ ] On this branch they pass: `breeze run pytest {' '.join(files)}`"
    else:
        yield f"- Tests: {patch.trailer('Tests') or 'none'}"


def tests_of(commit: Commit, clone: Path) -> dict[str, str]:
    """Return the test modules that a commit adds (``A``) or changes (``M``)."""
    options = ("--no-commit-id", "--name-status", "--no-renames", "-r", "-z", "--diff-filter=AM")
    words = git("diff-tree", *options, commit.id, cwd=clone).split("\0")[:-1]
    found = dict(zip(words[1::2], words[::2], strict=True))
    return {file: status for file, status in found.items() if re.search(r"/tests/(.*/)?test_\w+\.py$", file)}


def _measured(patch: Patch, links: Links) -> str:
    directory = ROOT / "docs" / "benchmarks"
    pages = sorted(directory.glob("*/README.md"))
    tables = ", ".join(links(f"docs/benchmarks/{page.parent.name}/README.md") for page in pages)
    found = _comparison(patch, directory)
    if found is None:
        return f"Not measured on its own. The whole series: {tables or 'not measured either'}"
    file, result, before, after = found
    table = [row for row in bench.rows(bench.load("memory"), [before, after], result["runs"]) if _shown(row)]
    options, runs = result["options"], _runs(result, before, after)
    tasks = options["parallelism"] * options["tasks_per_worker"]
    parts = [
        f"Memory of the scheduler and its children: Airflow {result['base']}, LocalExecutor, "
        f"parallelism {options['parallelism']}, {tasks} tasks, {runs} {'run' if runs == 1 else 'runs'} each. "
        "*Without* has the changes that come before this one in the series, *with* has this one as well.",
        result.get("note", ""),
        report.render(["without", "with"], table, terminal=False),
        f"Raw data: {links(f'docs/benchmarks/{file.parent.name}/{file.name}')}. All tables: {tables}. "
        "To repeat it: `scripts/patchset bench memory --each`",
    ]
    return "\n\n".join(filter(None, parts))


def _shown(row: report.Figure) -> bool:
    return (row.what, row.unit) in _SHOWN and any(value is not None for value in row.values)


def _comparison(patch: Patch, directory: Path) -> tuple[Path, dict, str, str] | None:
    """Return the measurement with most runs in which ``patch`` is the last of a series, and is not."""
    best, most = None, 0
    for file in sorted(directory.glob("*/memory*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        series_of = {
            label: [series.slug(name) for name in subject["patches"]]
            for label, subject in result["subjects"].items()
            if subject["airflow"] == result["base"]
        }
        for after, slugs in series_of.items():
            if slugs[-1:] != [patch.slug] or slugs[:-1] not in series_of.values():
                continue
            before = next(label for label, other in series_of.items() if other == slugs[:-1])
            if (runs := _runs(result, before, after)) > most:
                best, most = (file, result, before, after), runs
    return best


def _runs(result: dict, *labels: str) -> int:
    """Return how many runs there are of each of the subjects called ``labels``."""
    good = [run["label"] for run in result["runs"] if "error" not in run]
    return min(good.count(label) for label in labels)


def _ending(template: str) -> str:
    """Return what the template has below the description: from its first rule on, unchanged."""
    outside = _COMMENT.sub(lambda comment: re.sub(".", " ", comment[0]), template)
    rule = _RULE.search(outside)
    ending = template[rule.start() :] if rule else f"---\n{template}"
    if not _DISCLOSURE.search(ending):
        ending = f"---\n\n{_OWN_DISCLOSURE}\n{ending}"
    return ending.rstrip("\n") + "\n"
