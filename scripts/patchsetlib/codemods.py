# SPDX-License-Identifier: Apache-2.0
"""
Bulk rewrites that a patch names instead of storing them.

The trailer ``Codemod: NAME PATH...`` of a patch says: before the patch is applied, the program
``scripts/codemods/<name>.py`` (with ``_`` for each ``-``) rewrites what its parent has below the paths; the
patch holds only what the commit changes besides. The commit in a source tree holds both.

Such a program is a module with the function ``rewrite(paths)``, which rewrites files in place, each by
itself, so that trees with more or fewer files agree on those they share. Its constant ``WORDS``, an extended
regular expression, matches a line of every file that it could change; the others are not even read.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from patchsetlib.errors import PatchsetError
from patchsetlib.git import call, essential, git
from patchsetlib.paths import ROOT, display

TRAILER = "Codemod"
_DIRECTORY = ROOT / "scripts" / "codemods"
# What was rewritten already: name, path, id of the blob before, to the text after.
_known: dict[tuple[str, str, str], str] = {}


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
    programs = [path for path in _DIRECTORY.glob("*.py") if "\ndef rewrite(" in path.read_text("utf-8")]
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


def _rewrite_tree(codemod: Codemod, tree: str, repository: Path, env: dict[str, str]) -> str:
    changed = []
    entries = _candidates(codemod, tree, repository, env)
    for (mode, blob, path), text in zip(entries, _texts(codemod, entries, repository, env), strict=True):
        new = git("hash-object", "-w", "--stdin", cwd=repository, env=env, input=text).strip()
        if new != blob:
            changed.append(f"{mode} {new}\t{path}\0")
    if not changed:
        return tree
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        index = env | {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        git("read-tree", tree, cwd=repository, env=index)
        git("update-index", "-z", "--index-info", cwd=repository, env=index, input="".join(changed))
        return git("write-tree", cwd=repository, env=index).strip()


def _candidates(
    codemod: Codemod, tree: str, repository: Path, env: dict[str, str]
) -> list[tuple[str, str, str]]:
    """Return mode, blob and path of the Python files that hold the codemod's words."""
    words = getattr(_module(codemod.name), "WORDS", "")
    literal = env | {"GIT_LITERAL_PATHSPECS": "1"}
    grep = ("grep", "-z", "-l", "-I", "-E", "-e", words, tree, "--", *codemod.paths)
    found = call(*grep, cwd=repository, env=literal)
    if found.code > 1:
        raise PatchsetError(f"git grep for the codemod {codemod.name}: {essential(found.err)}")
    names = [entry.removeprefix(f"{tree}:") for entry in found.out.split("\0")[:-1]]
    names = [name for name in names if name.endswith(".py")]
    if not names:
        return []
    listed = git("ls-tree", "-z", tree, "--", *names, cwd=repository, env=literal)
    entries = []
    for entry in listed.split("\0")[:-1]:
        attributes, _, path = entry.partition("\t")
        mode, _, blob = attributes.split(" ")
        entries.append((mode, blob, path))
    return entries


def _texts(
    codemod: Codemod, entries: list[tuple[str, str, str]], repository: Path, env: dict[str, str]
) -> list[str]:
    """Return what the codemod makes of each of the files."""
    missing = [entry for entry in entries if (codemod.name, entry[2], entry[1]) not in _known]
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        files = {}
        for _, blob, path in missing:
            file = Path(scratch, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            text = git("cat-file", "blob", blob, cwd=repository, env=env)
            file.write_bytes(text.encode(errors="surrogateescape"))
            files[codemod.name, path, blob] = file
        if files:
            try:
                _module(codemod.name).rewrite(list(files.values()))
            except Exception as e:
                raise PatchsetError(f"the codemod {codemod.name} fails: {e}") from e
        for key, file in files.items():
            _known[key] = file.read_bytes().decode(errors="surrogateescape")
    return [_known[codemod.name, path, blob] for _, blob, path in entries]
