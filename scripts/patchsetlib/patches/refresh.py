# SPDX-License-Identifier: Apache-2.0
"""
A series moved to another commit, with stops where a human has to help.

The tree is a worktree of a clone. What is left to do stands in its git directory, so that it can go on after
a conflict, or after having been killed. The patch files of the base are only read.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import export, moving, series
from patchsetlib.patches.base import Base
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import call, git, git_dir
from patchsetlib.shell.paths import ROOT, display, work_dir
from patchsetlib.shell.staging import staged

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_STATE = "patchset-refresh.json"


@dataclass
class State:
    """What a tree knows of the move that is under way in it."""

    base: str
    clone: str
    onto: str
    """Id of the commit that the series is moved to."""
    new: str | None
    """Name of the base to write."""
    old_start: str
    old_tip: str
    patches: list[str]
    """Names of those still to be moved, the current one first."""
    head: str
    """Commit that the current patch goes on top of."""
    parent: str | None = None
    """Commit below the current patch, if that has stopped at a conflict."""
    rewritten: str | None = None
    """The same after its codemods."""

    def save(self, tree: Path) -> None:
        path = git_dir(tree, _STATE)
        temporary = path.with_name(f"{_STATE}.new")
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)


def start(base: Base, clone: Path, revision: str, tree: Path, new: str | None) -> None:
    """
    Move the series of ``base`` to ``revision``, in a new worktree of ``clone``, and say what changed.

    :param new: name of a base to write the result to
    :raises PatchsetError: at a conflict, which waits in ``tree``, or if it cannot be done
    """
    if _load(tree):
        raise PatchsetError(
            f"a refresh waits in {display(tree)}", f"{_way(base, tree)} --continue or --abort"
        )
    onto = moving.resolve(clone, revision, base)
    branch = _branch(base, onto, new)
    if gitlib.resolve(f"refs/heads/{branch}", clone):
        where = shlex.quote(display(clone))
        raise PatchsetError(
            f"branch {branch} exists in {display(clone)}",
            f"if it is no longer needed, remove its worktree and: git -C {where} branch -D {branch}",
        )
    if new is not None and new in bases.all_bases() and bases.load(new).commit != onto:
        raise PatchsetError(
            f"the base {new} exists, for {bases.load(new).commit}, not for {onto}",
            "choose another name with --as",
        )
    patches = series.load(base).patches
    old = moving.bring(base, clone)
    with ui.step(f"moving {len(patches)} patches of {base.name} to {onto[:12]}"):

        def publish(building: Path, final: Path) -> None:
            git("worktree", "move", building, final, cwd=clone)

        names = [patch.name for patch in patches]
        state = State(base.name, str(clone.absolute()), onto, new, old.start, old.tip, names, onto)
        with staged(tree, discard=lambda path: moving.remove(clone, path), publish=publish) as building:
            git("worktree", "add", "--quiet", "--detach", building, onto, cwd=clone)
            state.save(building)
        _move(base, state, tree)
    _finish(base, state, tree)


def go_on(base: Base, tree: Path) -> None:
    """
    Go on where a conflict has stopped the move.

    :raises PatchsetError: if it is not resolved, or at the next one
    """
    state = _state(base, tree)
    with ui.step(f"moving {len(state.patches)} patches of {base.name} to {state.onto[:12]}"):
        if state.parent and state.rewritten:
            _resolved(base, state, tree)
        else:
            # It was killed, not stopped: what there is of the current patch is nobody's work.
            git("am", "--abort", cwd=tree, check=False)
            git("reset", "--quiet", "--hard", state.head, cwd=tree)
        _move(base, state, tree)
    _finish(base, state, tree)


def abort(base: Base, tree: Path) -> None:
    """
    Remove the tree of a move that has stopped.

    :raises PatchsetError: if there is none
    """
    state = _state(base, tree)
    branch = _branch(base, state.onto, state.new)
    ours = git("symbolic-ref", "--quiet", "HEAD", cwd=tree, check=False).strip() == f"refs/heads/{branch}"
    moving.remove(Path(state.clone), tree)
    if ours:
        git("branch", "--quiet", "-D", branch, cwd=state.clone)
        git("tag", "-d", f"patchset-base/{state.new}", cwd=state.clone, check=False)
    ui.info(f"removed {display(tree)}; the patches of {base.name} are as they were")


def check_name(name: str) -> None:
    """Raise UsageError unless ``name`` can be that of a base."""
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]*", name) or name.endswith((".lock", ".")) or ".." in name:
        raise UsageError(f"{name!r} cannot be the name of a base", "use letters, digits, '.', '_' and '-'")


def _move(base: Base, state: State, tree: Path) -> None:
    by_name = {patch.name: patch for patch in series.load(base).patches}
    while state.patches:
        patch = by_name.get(state.patches[0])
        if patch is None:
            raise PatchsetError(
                f"{state.patches[0]} is no longer in the series of {base.name}",
                f"restore it, or give up: {_way(base, tree)} --abort",
            )
        try:
            moving.place(patch, tree)
        except moving.Conflict as e:
            state.parent, state.rewritten = e.parent, e.rewritten
            state.save(tree)
            raise _stopped(base, tree, e) from e
        _next(state, tree)


def _next(state: State, tree: Path) -> None:
    """Note that the current patch is done."""
    del state.patches[0]
    state.head = git("rev-parse", "HEAD", cwd=tree).strip()
    state.parent = state.rewritten = None
    state.save(tree)


def _stopped(base: Base, tree: Path, conflict: moving.Conflict) -> PatchsetError:
    where, way = shlex.quote(display(tree)), _way(base, tree)
    if conflict.files:
        remedy = f"resolve it in {where}, git add, then: {way} --continue"
    else:
        path = shlex.quote(str(conflict.patch.path))
        remedy = f"in {where}: git apply --reject {path}, bring in the rest, git add, then: {way} --continue"
    return PatchsetError(
        conflict.problem, f"{remedy}; to drop the patch: git am --skip; to give up: {way} --abort"
    )


def _resolved(base: Base, state: State, tree: Path) -> None:
    """Take over what the user has made of the patch at which the move has stopped."""
    assert state.parent is not None
    assert state.rewritten is not None
    if git_dir(tree, "rebase-apply").exists():
        # Those with conflicts, and those edited but not added, which the commit would lack.
        waiting = dict.fromkeys(git("diff", "--name-only", "-z", cwd=tree).split("\0")[:-1])
        if waiting:
            raise PatchsetError(
                f"{state.patches[0]}: not resolved: {', '.join(waiting)}",
                f"in {display(tree)}: edit, git add",
            )
        done = call("am", "--continue", cwd=tree)
        if done.code:
            reason = gitlib.essential(done.err or done.out)
            raise PatchsetError(
                f"{state.patches[0]}: git am cannot go on: {reason}",
                f"in {display(tree)}: git add what resolves it, or git am --skip",
            )
    head = git("rev-parse", "HEAD", cwd=tree).strip()
    if head != state.rewritten and gitlib.resolve(f"{head}^", tree) != state.rewritten:
        raise PatchsetError(
            f"{display(tree)} has not exactly one new commit for {state.patches[0]}",
            f"make it one on top of {state.rewritten[:12]}, or give up: {_way(base, tree)} --abort",
        )
    patch = series.parse(base.directory / state.patches[0])
    moving.finish(patch, tree, state.parent, state.rewritten)
    _next(state, tree)


def _finish(base: Base, state: State, tree: Path) -> None:
    """Give the result its branch and say what changed in the series."""
    branch = _branch(base, state.onto, state.new)
    git("switch", "--quiet", "--force-create", branch, cwd=tree)
    if state.new:
        git("tag", "--force", f"patchset-base/{state.new}", state.onto, cwd=tree)
    old, new = f"{state.old_start}..{state.old_tip}", f"{state.onto}..{branch}"
    print(git("range-diff", "--no-color", old, new, cwd=tree), end="")
    where = f"--dir {shlex.quote(display(tree))}"
    if state.new:
        for change in _write(base, state, tree):
            print(f"airflow-core/{state.new}/{change}")
        said = f"to write {state.new} again after a change: scripts/patchset export {state.new} {where}"
    else:
        said = (
            f"to make a base of it, write airflow-core/NEWBASE/base.toml for {state.onto}, then: "
            f"scripts/patchset export NEWBASE {where} --tip {branch}"
        )
    git_dir(tree, _STATE).unlink()
    ui.info(f"branch {branch}; {said}")
    print(tree)


def _write(base: Base, state: State, tree: Path) -> list[str]:
    """Write the files of the new base and return what changed there."""
    assert state.new is not None
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        if state.new in bases.all_bases():
            result = export.export(bases.load(state.new), tree, Path(scratch))
            changes = result.changes()
            result.write()
            return changes
        with staged(ROOT / "airflow-core" / state.new) as building:
            (building / "base.toml").write_text(_base_toml(base, state.onto, tree), encoding="utf-8")
            letter = base.directory / "cover-letter.md"
            if letter.exists():
                shutil.copyfile(letter, building / letter.name)
            result = export.export(bases.read(building, state.new), tree, Path(scratch))
            result.write()
            return ["base.toml: new", *(f"{name}: new" for name in result.contents)]


def _base_toml(base: Base, commit: str, tree: Path) -> str:
    """Return the ``base.toml`` of a base that is a commit of upstream's and no release."""
    project = tomllib.loads((tree / base.package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    strings = {
        "version": project.get("version", commit[:12]),
        "repository": base.repository,
        "commit": commit,
        "range": project.get("requires-python", base.python),
    }
    # A string of JSON is one of TOML.
    version, repository, commit, python = (json.dumps(text) for text in strings.values())
    return f"""\
# A commit of upstream's: there is no sdist, so trees are made from a clone.
# What the sources there call themselves.
version = {version}

[git]
repository = {repository}
commit = {commit}

[python]
range = {python}
"""


def _branch(base: Base, onto: str, new: str | None) -> str:
    return f"patchset/{new}" if new else f"patchset/{base.name}-onto-{onto[:12]}"


def _way(base: Base, tree: Path) -> str:
    usual = tree == work_dir() / base.name / "refresh"
    return f"scripts/patchset refresh {base.name}" + ("" if usual else f" --dir {shlex.quote(display(tree))}")


def _load(tree: Path) -> State | None:
    if not (tree / ".git").exists() or not gitlib.succeeds("rev-parse", "--git-dir", cwd=tree):
        return None
    path = git_dir(tree, _STATE)
    return State(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _state(base: Base, tree: Path) -> State:
    state = _load(tree)
    if state is None or state.base != base.name:
        raise PatchsetError(
            f"no refresh of {base.name} waits in {display(tree)}",
            f"start one: scripts/patchset refresh {base.name} --onto REV",
        )
    return state
