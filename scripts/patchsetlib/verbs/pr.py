# SPDX-License-Identifier: Apache-2.0
"""``patchset pr``: a branch and a description for one upstream pull request."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path

from patchsetlib.patches import base as bases
from patchsetlib.patches import clone as clones
from patchsetlib.patches import series
from patchsetlib.patches.base import UPSTREAM, Base
from patchsetlib.patches.series import Patch
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import ui
from patchsetlib.shell.paths import ROOT, display, work_dir
from patchsetlib.upstream import description, pullrequest
from patchsetlib.upstream.pullrequest import Branch, web_addresses

HELP = "make a branch and a description for one pull request to upstream"
_NO_ADDRESS = "ADDRESS-OF-THE-PATCH-SET"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("base", metavar="BASE", help="for example 3.4.0b2; see patchset status")
    add("patch", metavar="PATCH", help="its number in the series, or a part of its file name or subject")
    add("--source", metavar="CLONE", type=Path, help="clone that gets the branch (default: one of its own)")
    add("--onto", metavar="REV", help="commit to put it on (default: upstream's main, as last fetched)")
    add("--dir", metavar="DIR", type=Path, help="for worktree and description (default: work/BASE/pr/NAME)")
    add("--branch", metavar="NAME", help="name of the branch (default: made of the subject)")


def run(args: argparse.Namespace) -> int:
    base = bases.load(args.base)
    patch = pullrequest.find(series.load(base), args.patch)
    _warn(base, patch)
    if args.source:
        clone, revision = args.source, args.onto or pullrequest.upstream_main(base, args.source)
    else:
        revision = args.onto or "origin/main"
        clone = clones.own(base, revision)
    name = args.branch or patch.slug.lower()
    directory = (args.dir or work_dir() / base.name / "pr" / patch.slug.lower()).absolute()
    branch = pullrequest.make(patch, base, clone, revision, name, directory)
    text = description.describe(branch, base, clone, _address())
    branch.body.write_text(text, encoding="utf-8")
    if _NO_ADDRESS in text:
        ui.warn(f"this repository has no remote to link to: replace {_NO_ADDRESS} in {display(branch.body)}")
    print("\n".join(_next(branch, clone)))
    print(branch.directory)
    return 0


def _warn(base: Base, patch: Patch) -> None:
    """Say what speaks against sending this patch."""
    if base.released:
        ui.warn(
            f"the series of {base.name} leaves upstream's existing tests and documents as they are; "
            "adapt them on the branch before you send it"
        )
    if applied := patch.trailer("Applied-Upstream"):
        ui.warn(f"{patch.name}: upstream has its own form of this: {applied}")
    forwarded = patch.trailer("Forwarded") or ""
    if forwarded.startswith("https://"):
        ui.warn(f"{patch.name}: there is a pull request: {forwarded}")


def _address() -> str:
    """Return the address of this repository's files, as they are in its checked out commit."""
    commit, addresses = gitlib.resolve("HEAD", ROOT), web_addresses(ROOT)
    return f"{next(iter(addresses.values()))}/blob/{commit}" if commit and addresses else _NO_ADDRESS


def _next(branch: Branch, clone: Path) -> Iterator[str]:
    """Yield the commands that come next, with a word on each."""
    forks = {
        name: address
        for name, address in web_addresses(clone).items()
        if address.startswith("https://github.com/") and address != UPSTREAM
    }
    remote, fork = next(
        iter(forks.items()), ("https://github.com/YOU/airflow", "https://github.com/YOU/airflow")
    )
    tests, body = description.tests_of(branch.patch), shlex.quote(str(branch.body))
    yield "# look at it, check it as upstream does"
    yield f"cd {shlex.quote(str(branch.tree))}"
    yield f"git log --patch {branch.start[:12]}.."
    yield f"prek run --from-ref {branch.start[:12]} --to-ref HEAD"
    if tests:
        yield f"breeze run pytest {shlex.join(tests)}"
    yield "# complete the description: the tests that passed, and whether generative AI was used"
    yield f"$EDITOR {body}"
    yield "# send it"
    yield f"git push {remote} {branch.name}"
    yield (
        f"gh pr create --draft --repo apache/airflow --base main --head {fork.split('/')[3]}:{branch.name} "
        f"--title {shlex.quote(branch.patch.subject)} --body-file {body}"
    )
