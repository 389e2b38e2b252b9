# SPDX-License-Identifier: Apache-2.0
"""One patch as a branch for a pull request: its commit on top of those that it depends on."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches import series
from patchsetlib.patches.base import UPSTREAM, Base
from patchsetlib.patches.check import TRAILERS
from patchsetlib.patches.series import Patch
from patchsetlib.patches.source import Applied
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display
from patchsetlib.upstream import trees

_URL = re.compile(
    r"(?:(?:https|ssh)://(?:[^@/]*@)?|[^@/:]+@)([\w.-]+)(?::\d+)?[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?"
)


@dataclass(frozen=True)
class Branch:
    """A branch with one patch at its tip, and below it those that it depends on and upstream lacks."""

    name: str
    start: str
    """Id of upstream's commit below the branch."""
    commits: list[Applied]
    directory: Path

    @property
    def patch(self) -> Patch:
        return self.commits[-1].patch

    @property
    def tree(self) -> Path:
        """The worktree that has the branch checked out."""
        return self.directory / "airflow"

    @property
    def body(self) -> Path:
        """File with the description of the pull request."""
        return self.directory / "body.md"


def find(patches: Sequence[Patch], wanted: str) -> Patch:
    """
    Return the patch that ``wanted`` names: its number in the series, or a part of its file name or subject.

    :raises UsageError: if there is none, or more than one
    """
    if wanted.isdigit():
        found = [patch for number, patch in enumerate(patches, start=1) if number == int(wanted)]
    else:
        text = Path(wanted).name.casefold()
        found = [
            patch for patch in patches if text in patch.name.casefold() or text in patch.subject.casefold()
        ]
    if len(found) != 1:
        raise UsageError(
            f"{'several patches are' if found else 'no patch is'} called {wanted!r}",
            f"patches: {', '.join(patch.name for patch in found or patches) or 'none'}",
        )
    return found[0]


def with_dependencies(patches: Sequence[Patch], patch: Patch) -> list[Patch]:
    """
    Return ``patch`` and, before it, those that it needs by its trailers ``Depends-on``, in the series' order.

    :param patches: the series
    :raises PatchsetError: if a trailer names none of them
    """
    needed = {patch.subject}
    for each in reversed(patches):
        if each.subject in needed:
            needed.update(each.trailers.get("Depends-on", ()))
    if unknown := needed - {each.subject for each in patches}:
        raise PatchsetError(
            f"{patch.name} depends on {unknown.pop()!r}, which is no patch of this series",
            "the trailer Depends-on holds the subject of another patch",
        )
    return [each for each in patches if each.subject in needed]


def message(patch: Patch) -> str:
    """Return the message for upstream: that of the patch without the trailers meant for this repository."""
    kept = [
        f"{key}: {value}" for key, values in patch.trailers.items() for value in values if key not in TRAILERS
    ]
    return "\n\n".join(part for part in (patch.subject, patch.body, "\n".join(kept)) if part) + "\n"


def web_addresses(repository: Path) -> dict[str, str]:
    """Return the addresses for people of the remotes of a repository: name to ``https://host/owner/name``."""
    listed = git("config", "--null", "--get-regexp", r"^remote\..*\.url$", cwd=repository, check=False)
    found = {}
    for entry in listed.split("\0")[:-1]:
        key, url = entry.split("\n", 1)
        if match := _URL.fullmatch(url):
            found[key.removeprefix("remote.").removesuffix(".url")] = f"https://{match[1]}/{match[2]}"
    return found


def upstream_main(base: Base, clone: Path) -> str:
    """
    Return the name that upstream's branch ``main`` has in ``clone``, as it was last fetched.

    :raises PatchsetError: if there is none
    """
    clones.verify(clone)
    for name, address in web_addresses(clone).items():
        if address == UPSTREAM and gitlib.resolve(f"refs/remotes/{name}/main", clone):
            return f"{name}/main"
    where = shlex.quote(display(clone))
    raise PatchsetError(
        f"{display(clone)} has no branch main of {UPSTREAM}",
        f"git -C {where} remote add upstream {UPSTREAM}, git -C {where} fetch upstream main; "
        "or name a commit with --onto",
    )


def make(
    patch: Patch,
    base: Base,
    clone: Path,
    revision: str,
    name: str,
    directory: Path,
) -> Branch:
    """
    Make branch ``name`` in ``clone``, with a worktree in ``directory``.

    What ``clone`` has checked out is not touched.

    :param revision: what the branch is to be on top of
    :raises PatchsetError: if it cannot be made; then nothing is left behind
    """
    start = clones.resolve(clone, base, revision)
    identity = gitlib.identity(clone)
    wanted = with_dependencies(series.load(base), patch)
    *_, applied = clones.fetch_series(base, clone)
    if directory.exists():
        raise PatchsetError(f"{display(directory)} exists", "remove it, or name another one with --dir")
    branch = Branch(name, start, [], directory)
    ui.info(f"git worktree add -b {name} {shlex.quote(display(branch.tree))} {start[:12]}")
    clones.add_worktree(clone, branch.tree, name, start)
    try:
        for entry in (each for each in applied if each.patch in wanted):
            ui.info(f"git cherry-pick {entry.commit[:12]} # {entry.patch.subject}")
            if made := trees.cherry_pick(base, entry, branch.tree, message(entry.patch), identity):
                branch.commits.append(made)
            elif entry.patch == patch:
                raise PatchsetError(f"{patch.name} changes nothing on top of {revision}", "upstream has it")
            else:
                ui.info(f"{entry.patch.name} changes nothing on top of {revision}, left out")
    except BaseException:
        clones.remove_worktree(clone, branch.tree, name)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return branch
