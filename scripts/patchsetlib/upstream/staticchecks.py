# SPDX-License-Identifier: Apache-2.0
"""
Upstream's static checks of every commit of a series, in a full checkout.

Upstream's hooks, ruff of the version that upstream pins among them, are run by prek as upstream does: ``prek
run --from-ref PARENT --to-ref COMMIT``. Hooks from other repositories are skipped, since prek would clone
those, and hooks that need Docker skip themselves. ``SKIP`` skips more, as always with prek. mypy checks the
source files that the series changes; what it says of the base as well is not the patches' fault.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchsetlib.patches import clone as clones
from patchsetlib.patches.base import Base
from patchsetlib.patches.check import Finding
from patchsetlib.shell import ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import work_dir
from patchsetlib.upstream import environment, trees

CONFIGURATION = ".pre-commit-config.yaml"


def run(base: Base, clone: Path) -> list[Finding]:
    """
    Check all commits of the series of ``base``; say why, if that cannot be done here.

    :param clone: of apache/airflow
    :raises PatchsetError: if a check cannot be run
    """
    findings: list[Finding] = []
    with trees.scratch(clone) as directory:
        tree = directory / "tree"
        try:
            clones.resolve(clone, base)
            applied = trees.place_series(base, clone, base.commit, tree)
        except PatchsetError as e:
            ui.warn(f"{base.name}: upstream's static checks skipped: {e}")
            return []
        if not applied or not (tree / CONFIGURATION).is_file():
            ui.info(f"{base.name}: upstream's static checks skipped: no patches, or no {CONFIGURATION}")
            return []
        python = environment.install(base, tree, base.commit, directory / "python")
        sources = [
            file for entry in applied for file in entry.patch.files if re.search(r"(^|/)src/.*\.py$", file)
        ]
        git("checkout", "--quiet", "--detach", base.commit, cwd=tree)
        with ui.step("mypy on the base"):
            known = Counter(message for message, _ in mypy(python, tree, sources))
        parent, date = base.commit, environment.commit_date(tree, base.commit)
        for entry in applied:
            git("checkout", "--quiet", "--detach", entry.commit, cwd=tree)
            with ui.step(f"static checks of {entry.patch.name}"):
                problems = [*hooks(tree, parent, date), *_new_errors(mypy(python, tree, sources), known)]
            findings += [Finding(entry.patch.path, problem) for problem in problems]
            parent = entry.commit
        skipped = ", ".join(sorted(remote_hooks(tree)))
        ui.info(f"{base.name}: hooks that prek would clone from other repositories are skipped: {skipped}")
    return findings


def hooks(tree: Path, parent: str, date: str) -> Iterator[str]:
    """
    Run upstream's hooks on the commit that ``tree`` has checked out, and leave ``tree`` as it was.

    :param parent: the commit before
    :param date: newest upload date of what prek installs for a hook, RFC 3339
    :raises PatchsetError: if prek cannot run them
    """
    # pyenv has only stubs on PATH, which fail for all versions but the selected ones.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    own = Path(sys.executable).parent
    variables = uvtool.environment() | {
        "PATH": os.pathsep.join(map(str, [own, *sorted(pyenv.glob("*/bin")), os.environ["PATH"]])),
        "PREK_HOME": str(work_dir() / "upstream" / "prek"),
        # Upstream's own switch for the hooks that start its CI image.
        "SKIP_BREEZE_PREK_HOOKS": "true",
        "UV_EXCLUDE_NEWER": date,
    }
    # prek does not clone a repository whose hooks are all skipped.
    skipped = [f"--skip={hook}" for hook in sorted(remote_hooks(tree))]
    done = subprocess.run(
        [own / "prek", "run", "--quiet", "--color=never", "--from-ref", parent, "--to-ref", "HEAD", *skipped],
        cwd=tree,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Many hooks repair what they find.
    git("reset", "--quiet", "--hard", cwd=tree)
    git("clean", "--quiet", "--force", "-d", cwd=tree)
    if done.returncode and "- hook id: " in done.stdout:
        yield f"upstream's hooks fail\n{done.stdout.rstrip()}"
    elif done.returncode:
        raise PatchsetError(
            f"prek cannot run upstream's hooks: {done.stdout.strip()}",
            "they need the package index, and many of them Python 3.10; SKIP=ID,... leaves out some",
        )


def remote_hooks(tree: Path) -> set[str]:
    """Return the ids of upstream's hooks that are in other repositories, or prek's own."""
    found: set[str] = set()
    for path in git("ls-files", "-z", f"*{CONFIGURATION}", cwd=tree).split("\0")[:-1]:
        text = (tree / path).read_text(encoding="utf-8")
        for repository in re.split(r"^ *- repo: *", text, flags=re.MULTILINE)[1:]:
            if not repository.startswith("local"):
                found.update(re.findall(r"\bid: *([\w-]+)", repository))
    return found


def mypy(python: Path, tree: Path, files: Sequence[str]) -> list[tuple[str, str]]:
    """
    Return what mypy says about those of ``files`` that ``tree`` has.

    :return: pairs: file and message, without the line number, which any change above it moves; and the whole
        line of output
    :raises PatchsetError: if mypy does not get to its end
    """
    present = sorted({file for file in files if (tree / file).is_file()})
    if not present:
        return []
    cache = python.parents[1] / "mypy-cache"
    options = ("--no-pretty", "--no-error-summary", "--no-color-output", "--cache-dir", cache)
    done = subprocess.run(
        [python, "-m", "mypy", *options, *present],
        cwd=tree,
        env=environment.variables(python),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^((.+?):\d+(?::\d+)?: (error: .*))$", done.stdout, re.MULTILINE)
    if done.returncode and not found:
        raise PatchsetError(
            f"mypy ends with exit code {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return [(f"{file}: {message}", line) for line, file, message in found]


def _new_errors(errors: Sequence[tuple[str, str]], known: Counter[str]) -> Iterator[str]:
    """Yield the errors that are not ``known``, and add them, so that they are told once."""
    counted = Counter(message for message, _ in errors)
    new = counted - known
    known |= counted
    for message, line in errors:
        if new[message]:
            new[message] -= 1
            yield f"mypy: {line}"
