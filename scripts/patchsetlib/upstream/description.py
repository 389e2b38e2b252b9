# SPDX-License-Identifier: Apache-2.0
"""The description of a pull request, in the form that upstream's template asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from patchsetlib.patches import series
from patchsetlib.patches.base import UPSTREAM, Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import ROOT
from patchsetlib.upstream.pullrequest import Branch

TEMPLATE = ".github/PULL_REQUEST_TEMPLATE.md"
_TESTS = re.compile(r"(^|/)tests/(.*/)?test_\w+\.py")


def describe(branch: Branch, base: Base, clone: Path, address: str) -> str:
    """
    Return the description of the pull request for the patch at the tip of ``branch``, as Markdown.

    :param address: of a directory on the web that holds the files of this repository
    """
    patch = branch.patch
    bugs = patch.trailers.get("Bug", ())
    notes = base.directory / "notes" / f"{patch.slug}.md"
    parts = [
        "\n".join(f"related: {bug.replace(f'{UPSTREAM}/issues/', '#')}" for bug in bugs),
        patch.body,
        notes.read_text(encoding="utf-8").strip() if notes.is_file() else "",
        _section("Builds on", _below(branch)),
        _section("Tests", _tests(patch)),
        _section("Measured effect", _measured(patch, address)),
        _ending(git("show", f"{branch.start}:{TEMPLATE}", cwd=clone, check=False)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(title: str, lines: Iterator[str]) -> str:
    text = "\n".join(lines)
    return f"### {title}\n\n{text}" if text else ""


def _below(branch: Branch) -> Iterator[str]:
    """Yield what must be merged first, which the pull request shows as well until it is."""
    for entry in branch.commits[:-1]:
        forwarded = entry.patch.trailer("Forwarded") or ""
        where = forwarded if forwarded.startswith("https://") else "no pull request yet"
        yield f"- {entry.patch.subject} ({where})"
    if branch.commits[:-1]:
        yield "\nTheir commits are on this branch as well. This pull request is about the last one."


def _tests(patch: Patch) -> Iterator[str]:
    for title, new in (("New", True), ("Changed", False)):
        if files := [f"`{file}`" for file in tests_of(patch) if (file in patch.created) == new]:
            yield f"- {title}: {', '.join(files)}"
    if not tests_of(patch):
        yield f"- {patch.trailer('Tests') or 'none'}"


def tests_of(patch: Patch) -> list[str]:
    """Return the test modules that a patch adds or changes."""
    return [file for file in patch.files if _TESTS.search(file)]


def _measured(patch: Patch, address: str) -> Iterator[str]:
    """Yield links to the measurements that have runs with ``patch`` as the last one, and runs without it."""
    found = False
    directory = ROOT / "docs" / "benchmarks"
    for file in sorted(directory.glob("*/*.json")):
        subjects = json.loads(file.read_text(encoding="utf-8")).get("subjects", {})
        labels = {
            tuple(series.slug(name) for name in subject["patches"]): label
            for label, subject in subjects.items()
        }
        for slugs, label in labels.items():
            if slugs[-1:] == (patch.slug,) and slugs[:-1] in labels:
                found = True
                raw = f"{address}/docs/benchmarks/{file.relative_to(directory)}"
                yield (
                    f"- {file.stem}: *{labels[slugs[:-1]]}* is without this change, *{label}* with it: "
                    f"[raw data]({raw}), [tables]({raw.rpartition('/')[0]}/README.md)"
                )
    if not found:
        yield f"Not measured on its own. All measurements: {address}/docs/benchmarks"


def _ending(template: str) -> str:
    """Return what the template has below the description: all but the comments at its top."""
    return re.sub(r"\A(\s*<!--.*?-->)*\s*", "", template, flags=re.DOTALL).rstrip()
