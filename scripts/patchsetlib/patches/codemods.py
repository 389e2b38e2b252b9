# SPDX-License-Identifier: Apache-2.0
"""
Bulk rewrites that a patch names instead of storing them.

The trailer ``Codemod: NAME PATH...`` of a patch says: before the patch is applied, the program
``scripts/codemods/<name>.py`` (with ``_`` for each ``-``) rewrites what its parent has below the paths; the
patch holds only what the commit changes besides. The commit in a source tree holds both.

Such a program is a module with the function ``rewrite(paths)``, which rewrites files in place, each by
itself, so that trees with more or fewer files agree on those they share. Its constant ``WORDS`` has extended
regular expressions, each of which matches a line of every file that it could change; no other is even read.
It finds the files below an empty directory, at their places, with the settings of ruff that the tree has for
them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import call, essential, git
from patchsetlib.shell.paths import ROOT, display, work_dir

TRAILER = "Codemod"
_DIRECTORY = ROOT / "scripts" / "codemods"
_SETTINGS = ("pyproject.toml", "ruff.toml", ".ruff.toml")
_LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}


@dataclass(frozen=True)
class Codemod:
    """One use of a codemod, as a trailer says it."""

    name: str
    paths: tuple[str, ...]
    """Files and directories of the monorepo."""


def parse(value: str) -> Codemod:
    """
    Read the value of a trailer.

    :raises PatchsetError: if it names no path, or a codemod that does not exist
    """
    name, *paths = value.split() or [""]
    if not paths or any(path.startswith(("/", "-")) or ".." in path.split("/") for path in paths):
        raise PatchsetError(
            f"trailer '{TRAILER}: {value}' is not a name followed by paths of the monorepo",
            f"for example: {TRAILER}: executors-to-runner airflow-core/tests",
        )
    if name not in (known := _programs()):
        raise PatchsetError(
            f"trailer '{TRAILER}: {value}' names a codemod that {display(_DIRECTORY)} does not have",
            f"codemods there: {', '.join(known) or 'none'}",
        )
    return Codemod(name, tuple(path.rstrip("/") for path in paths))


def _programs() -> list[str]:
    """Return the names of all codemods; other modules beside them only help."""
    programs = [path for path in _DIRECTORY.glob("*.py") if "def rewrite(" in path.read_text("utf-8")]
    return sorted(path.stem.replace("_", "-") for path in programs)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"codemods.{name.replace('-', '_')}")


def rewritten(
    values: Iterable[str], commit: str, repository: Path, env: Mapping[str, str] | None = None
) -> str:
    """
    Return the id of the tree that the codemods make of the tree of ``commit``; its objects are written.

    Neither index nor worktree of ``repository`` is touched. Without a matching file it is the same tree.

    :param values: of the trailers, in order
    :param env: variables for git, e.g. where more objects are
    :raises PatchsetError: if a trailer is not valid or a file cannot be rewritten
    """
    tree = git("rev-parse", "--verify", f"{commit}^{{tree}}", cwd=repository, env=env).strip()
    for value in values:
        tree = _rewrite_tree(parse(value), tree, repository, dict(env or {}))
    return tree


@dataclass(frozen=True)
class _Entry:
    """A file of a tree."""

    mode: str
    blob: str
    path: str


def _rewrite_tree(codemod: Codemod, tree: str, repository: Path, env: dict[str, str]) -> str:
    entries = _candidates(codemod, tree, repository, env)
    settings = _entries(tree, _settings(entries), repository, env)
    changed = []
    for entry, text in zip(entries, _texts(codemod, entries, settings, repository, env), strict=True):
        if text is not None:
            new = git("hash-object", "-w", "--stdin", cwd=repository, env=env, input=text).strip()
            changed.append(f"{entry.mode} {new}\t{entry.path}\0")
    if not changed:
        return tree
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        index = env | {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        git("read-tree", tree, cwd=repository, env=index)
        git("update-index", "-z", "--index-info", cwd=repository, env=index, input="".join(changed))
        return git("write-tree", cwd=repository, env=index).strip()


def _candidates(codemod: Codemod, tree: str, repository: Path, env: dict[str, str]) -> list[_Entry]:
    """Return the Python files that hold the codemod's words."""
    words = getattr(_module(codemod.name), "WORDS", ("",))
    patterns = [option for word in words for option in ("-e", word)]
    grep = ("grep", "-z", "-l", "-I", "-E", "--all-match", *patterns, tree, "--", *codemod.paths)
    found = call(*grep, cwd=repository, env=env | _LITERAL)
    if found.code > 1:
        raise PatchsetError(f"git grep for the codemod {codemod.name}: {essential(found.err)}")
    names = [entry.removeprefix(f"{tree}:") for entry in found.out.split("\0")[:-1]]
    return _entries(tree, [name for name in names if name.endswith(".py")], repository, env)


def _settings(entries: Iterable[_Entry]) -> list[str]:
    """Return where settings for ``entries`` may be, which say how a file is laid out."""
    directories = {parent for entry in entries for parent in PurePosixPath(entry.path).parents}
    return sorted(str(directory / name) for directory in directories for name in _SETTINGS)


def _entries(tree: str, paths: list[str], repository: Path, env: dict[str, str]) -> list[_Entry]:
    """Return those of ``paths`` that are in ``tree``."""
    if not paths:
        return []
    listed = git("ls-tree", "-z", tree, "--", *paths, cwd=repository, env=env | _LITERAL)
    entries = []
    for line in listed.split("\0")[:-1]:
        attributes, _, path = line.partition("\t")
        mode, _, blob = attributes.split(" ")
        entries.append(_Entry(mode, blob, path))
    return entries


def _texts(
    codemod: Codemod, entries: list[_Entry], settings: list[_Entry], repository: Path, env: dict[str, str]
) -> list[str | None]:
    """Return what the codemod makes of each of the files, None where it changes nothing."""
    places = {entry: _place(codemod, entry, settings) for entry in entries}
    missing = [entry for entry in entries if not places[entry].exists()]
    before = _read([*entries, *settings], repository, env)
    if missing:
        ui.info(f"running the codemod {codemod.name} over {len(missing)} files, which can take a minute")
        with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
            # Whatever settings are further up are not those of the tree.
            Path(scratch, "ruff.toml").touch()
            root = Path(scratch, "tree")
            for entry in [*missing, *settings]:
                file = root / entry.path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(before[entry])
            try:
                _module(codemod.name).rewrite([root / entry.path for entry in missing])
            except PatchsetError as e:
                problem = e.problem.replace(f"{root}/", "")
                raise PatchsetError(f"the codemod {codemod.name} fails: {problem}") from e
            for entry in missing:
                _keep((root / entry.path).read_bytes(), places[entry])
    after = {entry: places[entry].read_bytes() for entry in entries}
    return [
        None if after[entry] == before[entry] else after[entry].decode(errors="surrogateescape")
        for entry in entries
    ]


def _place(codemod: Codemod, entry: _Entry, settings: list[_Entry]) -> Path:
    """Return where what becomes of a file is kept: named after all that it depends on."""
    digest = hashlib.sha256()
    # The libraries, too: their versions stand there.
    programs = [*sorted(_DIRECTORY.glob("*.py")), _DIRECTORY.parent / "requirements.txt"]
    for path in programs:
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    digest.update("\0".join([codemod.name, *map(str, (entry, *settings))]).encode(errors="surrogateescape"))
    return work_dir() / "codemods" / digest.hexdigest()


def _keep(data: bytes, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=place.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, place)


def _read(entries: Iterable[_Entry], repository: Path, env: dict[str, str]) -> dict[_Entry, bytes]:
    """Return the content of blobs, all in one go."""
    entries = list(entries)
    asked = "".join(f"{entry.blob}\n" for entry in entries)
    out = git("cat-file", "--batch", cwd=repository, env=env, input=asked).encode(errors="surrogateescape")
    found, position = {}, 0
    for entry in entries:
        end = out.index(b"\n", position)
        size = int(out[position:end].split(b" ")[2])
        found[entry] = out[end + 1 : end + 1 + size]
        position = end + 1 + size + 1
    return found
