# SPDX-License-Identifier: Apache-2.0
"""
A series moved to another source with ``git rebase --onto``.

The commits on the old base are fetched into the repository of the new source; the two need no common history,
as each commit is merged by content. Where that needs a human, git's own ``rebase --continue``, ``--skip`` and
``--abort`` lead on or back, and ``export`` writes the result. The patch files of the old base are only read.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import clone as clones
from patchsetlib.patches import series, source
from patchsetlib.patches.base import Base
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import call, git
from patchsetlib.shell.paths import ROOT, display
from patchsetlib.shell.staging import staged

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def onto_release(base: Base, target: Base, tree: Path) -> None:
    """
    Move the series of the release ``base`` to another one, in a new tree made from the sdists of that.

    :raises PatchsetError: at a conflict, which waits in ``tree``, or if it cannot be done
    """
    with staged(tree) as building:
        source.make_sdist_tree(target, building)
        start, tip = clones.fetch_series(base, building)[:2]
        git("reset", "--quiet", "--hard", tip, cwd=building)
    _rebase(target.name, tree, start, tip)


def onto_revision(base: Base, clone: Path, revision: str, tree: Path, new: str | None) -> None:
    """
    Move the series of ``base`` to a commit of ``clone``, in a new worktree of it.

    :param new: name of the base to make of the result; without one it is only a trial
    :raises PatchsetError: at a conflict, which waits in ``tree``, or if it cannot be done
    """
    onto = clones.resolve(clone, base, revision)
    if new in bases.all_bases() and bases.load(new).commit != onto:
        raise PatchsetError(
            f"the base {new} exists, for {bases.load(new).commit}, not for {onto}",
            "choose another name with --as",
        )
    start, tip = clones.fetch_series(base, clone)[:2]
    name = new or f"{base.name}-onto-{onto[:12]}"
    clones.add_worktree(clone, tree, f"patchset/{name}", tip)
    git("tag", "--force", f"patchset-base/{name}", onto, cwd=clone)
    if new and new not in bases.all_bases():
        _write_base(base, onto, clone, ROOT / "airflow-core" / new)
    _rebase(name, tree, start, tip)


def _rebase(name: str, tree: Path, start: str, tip: str) -> None:
    """
    Rebase the branch that ``tree`` has checked out, and say what changed in the series.

    :param name: of the new base
    :param start: the commit on the old base that the series starts from
    :param tip: the last one of the series there
    """
    where, tag = shlex.quote(display(tree)), f"patchset-base/{name}"
    # Two sources differ in too many files for a guess at which were renamed; git keeps this for --continue.
    rebase = ("rebase", "--strategy-option=no-renames", "--onto", tag, start[:12])
    compare = ("range-diff", f"{start[:12]}..{tip[:12]}", f"{tag}..patchset/{name}")
    export = f"scripts/patchset export {name} --dir {where}" if name in bases.all_bases() else ""
    ui.info(f"git -C {where} {shlex.join(rebase)}")
    done = call(*rebase, cwd=tree)
    # Without what git overwrites on a terminal.
    for line in (done.stdout + re.sub(r"[^\n]*\r(\x1b\[K)?", "", done.stderr)).splitlines():
        ui.info(line)
    if done.returncode:
        steps = ["git rebase --continue (or --skip, --abort)", f"git {shlex.join(compare)}", export]
        raise PatchsetError(
            f"git rebase has stopped in {where}", f"resolve there, git add, {', '.join(filter(None, steps))}"
        )
    ui.info(f"git -C {where} {shlex.join(compare)}")
    print(git(compare[0], "--no-color", *compare[1:], cwd=tree), end="")
    if export:
        ui.info(f"to write airflow-core/{name}: {export}")
    print(tree)


def _write_base(base: Base, commit: str, clone: Path, directory: Path) -> None:
    """Make the directory of a base for a commit of upstream's, with no patches but the common ones."""
    core = base.distributions[0]
    text = git("show", f"{commit}:{core.directory}/pyproject.toml", cwd=clone)
    project = tomllib.loads(text)["project"]
    hooks = git("show", f"{commit}:.pre-commit-config.yaml", cwd=clone, check=False)
    ruff = re.search(r"\bruff==([\d.]+)", hooks)
    # A string of JSON is one of TOML.
    lines = [
        "# A commit of upstream's: there is no sdist, so trees are made from a clone.",
        f"version = {json.dumps(project.get('version', commit[:12]))}",
        f"\n[git]\nrepository = {json.dumps(base.repository)}\ncommit = {json.dumps(commit)}",
        f"\n[python]\nrange = {json.dumps(project.get('requires-python', base.python))}",
    ]
    lines += [f"\n[tools]\nruff = {json.dumps(ruff[1])}"] if ruff else []
    for each in base.distributions:
        table = f"project = {json.dumps(each.project)}\ndirectory = {json.dumps(each.directory)}"
        lines.append(f"\n[[distribution]]\n{table}")
    with staged(directory) as building:
        (building / "base.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        common = [f"{name}\n" for name in series.names(base) if name.startswith(series.COMMON)]
        (building / "series").write_text("".join(common), encoding="utf-8")
        shutil.copyfile(base.directory / "cover-letter.md", building / "cover-letter.md")
        if (notes := base.directory / "notes").is_dir():
            shutil.copytree(notes, building / "notes")
