# SPDX-License-Identifier: Apache-2.0
"""The documents: links lead somewhere, and commands, options and files that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patchsetlib import cli
from patchsetlib.shell.errors import UsageError
from patchsetlib.shell.git import git

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"scripts/patchset ([a-z]+)((?: [^`|\n#)]*)?)")


@pytest.fixture(scope="module")
def documents() -> dict[Path, str]:
    """All documents in version control, with their text."""
    names = git("ls-files", "-z", "*.md", cwd=ROOT).split("\0")[:-1]
    return {path: path.read_text(encoding="utf-8") for name in names if (path := ROOT / name).exists()}


def anchors(text: str) -> set[str]:
    """Return the fragments of the headings of a document, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere(documents):
    broken = []
    for document, text in documents.items():
        for link in LINK.findall(FENCE.sub("", text)):
            path, _, fragment = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            if re.match(r"[a-z]+:", link):
                continue
            if not target.exists() or (fragment and fragment not in anchors(documents.get(target, ""))):
                broken.append(f"{document.relative_to(ROOT)}: {link}")
    assert broken == []


def test_commands_and_their_options_exist(documents, capsys):
    wrong = []
    for document, text in documents.items():
        for verb, rest in COMMAND.findall(text.replace("\\\n", " ")):
            words = re.sub(r'[)("]', " ", rest.partition(" -- ")[0]).split()
            options = {word.partition("=")[0].rstrip(".,;") for word in words if word.startswith("-")}
            known = help_of(verb, words, capsys)
            missing = [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", known)]
            if not known or missing:
                wrong.append(f"{document.relative_to(ROOT)}: {verb} {' '.join(missing)}")
    assert wrong == []


def help_of(verb: str, words: list[str], capsys) -> str:
    """Return the help of a verb, and of what its first word chooses; empty if there is no such verb."""
    for arguments in ([verb], [verb, *words[:1]]):
        with pytest.raises((SystemExit, UsageError)):
            cli._parse([*arguments, "--help"])
    return capsys.readouterr().out


def test_readme_names_every_verb(documents):
    text = documents[ROOT / "README.md"]
    assert [verb for verb in cli.verb_names() if not re.search(rf"`{verb}\b", text)] == []


def test_files_exist(documents):
    named = re.compile(r"(?<![\w/.])(?:scripts|tests|docs|airflow-core/(?:common|3\.[\d.]+))/[\w./-]*\w")
    found = {(document, path) for document, text in documents.items() for path in named.findall(text)}
    assert sorted(f"{d.relative_to(ROOT)}: {p}" for d, p in found if not (ROOT / p).exists()) == []


def test_nothing_of_one_machine(documents):
    """No directory of somebody's, no host of a package index."""
    forbidden = re.compile(r"pypi\.org|pythonhosted|(?<![\w.~])/(?:work|root|home|tmp|Users)/")
    assert [str(d.relative_to(ROOT)) for d, text in documents.items() if forbidden.search(text)] == []
