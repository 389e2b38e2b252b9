# SPDX-License-Identifier: Apache-2.0
"""
Upstream's static checks over every commit of a series in a full checkout, as far as they need no Docker.

ruff and mypy are of the versions that upstream pins at the base, with its configuration. Its other hooks
are run by prek, as upstream does; left out are those that come from other repositories, and those that need
Docker, node, Breeze or the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from patchsetlib.installs import interpreters
from patchsetlib.patches import clone as clones
from patchsetlib.patches import moving, series, worktrees
from patchsetlib.patches.base import Base
from patchsetlib.patches.check import Finding
from patchsetlib.shell import git as gitlib
from patchsetlib.shell import processes, ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import git
from patchsetlib.shell.paths import display, work_dir
from patchsetlib.shell.staging import remove_tree, staged
from patchsetlib.upstream import environment as upstreamenv
from patchsetlib.upstream.testing import changed_files

CONFIGURATION = ".pre-commit-config.yaml"
# Seconds for one call; the longest, the first one of mypy, takes one or two minutes.
LIMIT = 1200.0
# What prek can run with an interpreter alone.
_LANGUAGES = ("python", "pygrep", "fail", "system")
# ruff is run without --fix, and mypy outside of Breeze, so not by these.
_REPLACED = re.compile(r"ruff(-format)?|mypy-.*")
_NETWORK = re.compile(r"\buv run\b|--spec-url\b")
_BREEZE = "initialize_breeze_prek("


def run(base: Base, clone: Path | None) -> list[Finding]:
    """
    Check all commits of the series of ``base``; say why, if that cannot be done here.

    :param clone: of apache/airflow
    :raises PatchsetError: if a check cannot be run
    """
    if clone is None:
        ui.info(
            f"{base.name}: upstream's static checks skipped: no clone of apache/airflow; give --source CLONE"
        )
        return []
    if reason := _missing(base, clone):
        ui.warn(f"{base.name}: upstream's static checks skipped: {reason}")
        return []
    patches = {patch.subject: patch.path for patch in series.load(base).patches}
    if not patches:
        return []
    findings, left_out = [], LeftOut()
    with worktrees.scratch() as trees:
        try:
            placed = moving.place_series(base, clone, base.commit, trees / "tree")
        except PatchsetError as e:
            ui.warn(f"{base.name}: upstream's static checks skipped: {e.problem}")
            return []
        tools = Tools.prepare(base, placed.tree, placed.start)
        with ui.step(f"checking with mypy what the patches of {base.name} change, without them"):
            known = _known_errors(tools, placed)
        for commit in placed.commits:
            subject = git("show", "--no-patch", "--format=%s", commit, cwd=placed.tree).rstrip("\n")
            with ui.step(f"static checks of {patches[subject].name}"):
                problems = _commit(tools, placed, commit, known, left_out)
                findings += [Finding(patches[subject], problem) for problem in problems]
    for why, names in left_out.reasons.items():
        ui.info(f"{base.name}: hooks left out, as they {why}: {', '.join(sorted(names))}")
    return findings


def _missing(base: Base, clone: Path) -> str:
    """Return why there is no full checkout to check; empty if there is."""
    try:
        clones.verify(base, clone)
    except PatchsetError as e:
        return str(e)
    if not gitlib.succeeds("cat-file", "-e", f"{base.commit}:{CONFIGURATION}", cwd=clone):
        return f"{base.commit[:12]} has no {CONFIGURATION}"
    return ""


@dataclass
class LeftOut:
    """The hooks that match a changed file and were not run: reason to names."""

    reasons: dict[str, set[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        self.reasons.setdefault(reason, set()).add(name)


@dataclass(frozen=True)
class Tools:
    """The programs, in the versions that belong to a commit."""

    environment: upstreamenv.Environment
    place: Path
    """Virtual environment with ruff, prek, and a uv that this prek knows."""
    date: str
    """Newest upload date of what prek installs."""

    @classmethod
    def prepare(cls, base: Base, tree: Path, start: str) -> Tools:
        """
        Install what is not there yet.

        :param tree: a full checkout, at any commit of the series
        :raises PatchsetError: if it cannot be installed
        """
        git("switch", "--quiet", "--detach", start, cwd=tree)
        environment = upstreamenv.prepare(base, tree, start)
        ruff = ruff_version((tree / CONFIGURATION).read_text(encoding="utf-8"))
        date = upstreamenv.commit_date(tree, start)
        place = upstreamenv.directory(start) / f"hooks-{environment.version}"
        if not (place / "bin" / "python").exists():
            remove_tree(place)
            with ui.step(f"installing ruff {ruff} and prek as of {date[:10]}"):
                log = place.with_name(f"{place.name}.log")
                with staged(place) as building:
                    wanted = ("prek", "uv", f"ruff=={ruff}")
                    upstreamenv.install(building, environment.python, date, *wanted, cwd=tree, log=log)
        return cls(environment, place, date)

    def call(self, tree: Path, *command: str | Path) -> processes.Completed:
        """Run a program in ``tree``, nothing of the user's settings but the index and the way to it."""
        variables = processes.neutral_environment() | {
            name: value for name, value in uvtool.environment().items() if name.startswith(("UV_", "SSL_"))
        }
        own = str(self.place / "bin")
        variables |= {
            "PATH": interpreters.search_path(f"{own}:{variables['PATH']}"),
            "PREK_HOME": str(work_dir() / "upstream" / "prek"),
            "SKIP_BREEZE_PREK_HOOKS": "true",
            "UV_EXCLUDE_NEWER": self.date,
        }
        return processes.run(command, env=variables, cwd=tree, capture=True, timeout=LIMIT)


def ruff_version(configuration: str) -> str:
    """
    Return the version of ruff that upstream pins.

    :param configuration: text of its configuration of hooks
    :raises PatchsetError: if it does not say
    """
    found = re.search(r"\bruff==([\d.]+)|ruff-pre-commit\s+rev: v([\d.]+)", configuration)
    if not found:
        raise PatchsetError(f"{CONFIGURATION} does not say which ruff upstream uses", "check that commit")
    return found[1] or found[2]


def _commit(
    tools: Tools, placed: moving.Placed, commit: str, known: Counter[str], left_out: LeftOut
) -> Iterator[str]:
    """Yield what is wrong with one commit."""
    tree = placed.tree
    git("switch", "--quiet", "--detach", commit, cwd=tree)
    files = changed_files(tree, f"{commit}~1", commit)
    python = [file for file in files if file.endswith((".py", ".pyi"))]
    yield from _ruff(tools, tree, python)
    yield from _new_errors(tools, placed, commit, known)
    yield from _hooks(tools, tree, files, left_out)


def _ruff(tools: Tools, tree: Path, files: Sequence[str]) -> Iterator[str]:
    if not files:
        return
    ruff = tools.place / "bin" / "ruff"
    common = ("--no-cache", "--force-exclude", *files)
    done = tools.call(tree, ruff, "check", "--no-fix", "--output-format=concise", *common)
    if done.returncode:
        # The last lines only count them.
        lines = [line for line in done.stdout.splitlines() if re.match(r"\S+:\d+:", line)]
        yield from (f"ruff check: {line}" for line in lines or _failure(done))
    done = tools.call(tree, ruff, "format", "--check", *common)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.startswith("Would reformat")]
        yield from (f"ruff format: {line}" for line in lines or _failure(done))


def _failure(done: processes.Completed) -> list[str]:
    """Return the line that says why a program did not do its work."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return [f"exit code {done.returncode}{': ' + lines[0] if lines else ''}"]


def _touched(placed: moving.Placed, commit: str) -> list[str]:
    """Return the Python files that the series has changed up to a commit, as far as the tree has them."""
    files = changed_files(placed.tree, placed.start, commit, "*.py")
    return [file for file in files if (placed.tree / file).is_file()]


def _known_errors(tools: Tools, placed: moving.Placed) -> Counter[str]:
    git("switch", "--quiet", "--detach", placed.start, cwd=placed.tree)
    files = _touched(placed, placed.commits[-1]) if placed.commits else []
    return Counter(error for error, _ in _mypy(tools, placed.tree, files))


def _new_errors(tools: Tools, placed: moving.Placed, commit: str, known: Counter[str]) -> Iterator[str]:
    """Yield the errors of mypy that are not ``known``, and add them, so that they are told once."""
    errors = _mypy(tools, placed.tree, _touched(placed, commit))
    counted = Counter(error for error, _ in errors)
    new = counted - known
    known |= counted
    for error, place in errors:
        if new[error]:
            new[error] -= 1
            yield f"mypy: {place} {error.partition(': ')[2]}"


def _mypy(tools: Tools, tree: Path, files: Sequence[str]) -> list[tuple[str, str]]:
    """
    Return the errors of mypy.

    :return: pairs of file with message, without the line, which every change above it moves; and the place
    """
    if not files:
        return []
    cache = tools.environment.place.with_name(f"mypy-{tools.environment.version}")
    options = ("--no-pretty", "--no-error-summary", "--no-color-output", "--cache-dir", cache)
    done = tools.call(tree, tools.environment.python, "-m", "mypy", *options, *files)
    found = re.findall(r"^((.+?):\d+(?::\d+)?:) (error: .*)$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode and not found):
        raise PatchsetError(f"mypy: {_failure(done)[0]}", f"see {display(tree)}")
    return [(f"{file}: {message}", place) for place, file, message in found]


def _hooks(tools: Tools, tree: Path, files: Sequence[str], left_out: LeftOut) -> Iterator[str]:
    """Run upstream's hooks on ``files``, and leave ``tree`` as it was."""
    try:
        if not reduce_configuration(tree, files, left_out):
            return
        done = tools.call(tree, tools.place / "bin" / "prek", "run", "--color=never", "--files", *files)
        if done.returncode:
            failed = list(failed_hooks(done.stdout))
            if not failed:
                reason = " ".join(line.strip() for line in (done.stderr or done.stdout).splitlines()[:3])
                raise PatchsetError(
                    f"prek cannot run upstream's hooks: {reason}",
                    "they need the package index, and many of them Python 3.10: install it",
                )
            yield from failed
    finally:
        git("checkout", "--quiet", "--force", "HEAD", "--", ".", cwd=tree)
        git("clean", "--quiet", "--force", "-d", cwd=tree)


def reduce_configuration(tree: Path, files: Sequence[str], left_out: LeftOut) -> bool:
    """
    Leave in upstream's configurations only hooks that can be run here, and return whether there are any.

    Upstream has one configuration at the root and one for each of some directories, for the files below it.

    :param tree: a full checkout; its configurations are changed, and those that are about no file removed
    :param files: that are to be checked
    """
    some = False
    for path in git("ls-files", "-z", f"*{CONFIGURATION}", cwd=tree).split("\0")[:-1]:
        configuration, project = tree / path, Path(path).parent
        mine = [str(Path(f).relative_to(project)) for f in files if Path(f).is_relative_to(project)]
        kept = _kept(configuration, mine, left_out) if mine else {"repos": []}
        if kept["repos"]:
            configuration.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
            some = True
        else:
            configuration.unlink()
    return some


def _kept(configuration: Path, files: Sequence[str], left_out: LeftOut) -> dict:
    data = yaml.safe_load(configuration.read_text(encoding="utf-8"))
    repositories = []
    for repository in data["repos"]:
        hooks = []
        for hook in repository["hooks"]:
            if repository["repo"] == "meta" or _REPLACED.fullmatch(hook["id"]):
                continue
            reason = _obstacle(repository["repo"], hook, configuration.parent)
            if not reason:
                hooks.append(hook)
            elif _matches(hook, files) and hook.get("stages") != ["manual"]:
                left_out.add(reason, hook["id"])
        if hooks:
            repositories.append({**repository, "hooks": hooks})
    return {**data, "repos": repositories}


def _obstacle(repository: str, hook: dict, directory: Path) -> str:
    """Return why a hook cannot be run here; empty if it can."""
    if repository != "local":
        return "come from other repositories"
    if hook["language"] not in _LANGUAGES:
        return f"need {hook['language'].removesuffix('_image')}"
    words = " ".join([str(hook["entry"]), *map(str, hook.get("args", ()))])
    if _NETWORK.search(words):
        return "need the network"
    script = directory / str(hook["entry"]).split()[0] if hook["language"] != "pygrep" else directory
    if script.is_file() and _BREEZE in script.read_text(encoding="utf-8"):
        return "need Breeze"
    return ""


def _matches(hook: dict, files: Sequence[str]) -> bool:
    """Return whether a hook is about one of ``files``, as far as their names say."""
    wanted, unwanted = re.compile(hook.get("files", "")), re.compile(hook.get("exclude", "^$"))
    return any(wanted.search(file) and not unwanted.search(file) for file in files)


def failed_hooks(output: str) -> Iterator[str]:
    """Yield name and message of the hooks that prek says have failed."""
    name, lines = "", []
    for line in [*output.splitlines(), "end..Passed"]:
        ended = re.match(r"(.*?)\.{2,}.*(Passed|Failed|Skipped)$", line)
        if not ended and not line.startswith("Running hooks for "):
            lines.append(line.strip())
            continue
        if name:
            said = [text for text in lines if text and not re.match(r"- (hook id|exit code|duration):", text)]
            yield f"hook {name}: {' / '.join(said[:5]) or 'failed'}"
        name, lines = (ended[1] if ended and ended[2] == "Failed" else ""), []
