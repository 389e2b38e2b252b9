# SPDX-License-Identifier: Apache-2.0
"""The documents: links lead somewhere, commands exist, numbers are in the raw data."""

from __future__ import annotations

import itertools
import json
import re
import statistics
from pathlib import Path

import pytest

from patchsetlib import cli

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
# Names of package indexes, places on somebody's machine, and what is still to be written.
FORBIDDEN = re.compile(
    r"pypi\.org|pythonhosted|(?<![\w.~])/(?:work|root|home|tmp|Users)/|TODO-NUMBER|@[A-Z_]{4,}@",
    re.IGNORECASE,
)
# What is planned and does not exist must not be printed as a command.
VERB = re.compile(r"scripts/patchset ([a-z]+)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def documents() -> list[Path]:
    """Return all documents of the repository, without what the tools have made in ``work``."""
    own = [entry for entry in ROOT.iterdir() if entry.name != "work" and not entry.name.startswith(".")]
    nested = (path for entry in own if entry.is_dir() for path in entry.rglob("*.md"))
    return sorted([*nested, *ROOT.glob("*.md")])


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


DOCUMENTS = documents()
GENERATED = ROOT / "docs" / "benchmarks"
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


def anchors(document: Path) -> set[str]:
    """Return the fragments of the headings of a document, as forges make them."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_documents():
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md"} <= {name(document) for document in DOCUMENTS}


@every_document
def test_relative_links_lead_somewhere(document):
    for link in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if fragment:
            assert fragment in anchors(target), link


@every_document
def test_verbs_exist(document):
    verbs = set(VERB.findall(document.read_text(encoding="utf-8")))
    assert verbs <= set(cli.verb_names())


@every_document
def test_nothing_forbidden(document):
    found = FORBIDDEN.findall(document.read_text(encoding="utf-8"))
    assert found == []


@every_document
def test_options_of_commands_exist(document, capsys):
    for line in re.findall(r"scripts/patchset ([a-z]+ [^`|\n#]*)", document.read_text(encoding="utf-8")):
        verb, *words = (
            line.partition(" -- ")[0].replace("\\", " ").replace(")", " ").replace('"', " ").split()
        )
        options = [word.partition("=")[0].rstrip(".,;") for word in words if word.startswith("-")]
        if not options:
            continue
        help_of = [verb, *(words[:1] if verb == "bench" else []), "--help"]
        with pytest.raises(SystemExit):
            cli._parse(help_of)
        known = capsys.readouterr().out
        for option in options:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known), (line, option)


def test_contents_are_complete():
    linked = set()
    for index in (ROOT / "docs" / "index.md", ROOT / "README.md"):
        for link in LINK.findall(index.read_text(encoding="utf-8")):
            linked.add((index.parent / link.partition("#")[0]).resolve())
    assert {
        d for d in DOCUMENTS if d.is_relative_to(ROOT / "docs") and d.name != "index.md"
    } - linked == set()


def test_readme_names_every_verb():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in cli.verb_names() if not re.search(rf"`{verb}\b", text)] == []


@every_document
def test_files_exist(document):
    text = document.read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w/.])(?:scripts|tests|docs|airflow-core/3\.[\d.]+)/[\w./-]*\w", text)
    # Paths of the monorepo look the same; they are in the patches.
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_evidence_of_the_reviewers_exists():
    """What the page for reviewers names is in the patches and in the fault tests."""
    text = (ROOT / "docs" / "reviewers.md").read_text(encoding="utf-8")
    claims = text[text.index("| claim | unit tests") : text.index("The fault tests run")]
    named = set(re.findall(r"`((?:[a-z]+/)*test_\w+(?:\.py)?|Test\w+)`", claims))
    scenarios = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"[^|]*\|$", claims, re.MULTILINE))))
    patches = "".join(p.read_text(encoding="utf-8") for p in ROOT.glob("airflow-core/3.1.3/*.patch"))
    faults = (ROOT / "tests" / "faults" / "test_faults.py").read_text(encoding="utf-8")
    assert len(named) >= 10
    assert {each for each in named if each not in patches} == set()
    assert {each for each in scenarios if f'"{each}"' not in faults} == set()


def test_messages_and_settings_of_operators_exist():
    text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    patches = "".join(p.read_text(encoding="utf-8") for p in ROOT.glob("airflow-core/3.1.3/*.patch"))
    table = text[text.index("| the scheduler's log says") :].partition("\n\n")[0]
    messages = re.findall(r"^\| `(.+?)`", table, re.MULTILINE)
    settings = re.findall(r"^\| `\[local_executor\] (\w+)`", text, re.MULTILINE)
    assert len(messages) == 3
    for message in messages:
        assert re.search(re.sub(r"\b[A-Z]\b", "%[sd]", message), patches), message
    assert [name for name in settings if f"{name}:" not in patches] == []


def measured() -> set[str]:
    """Return every number that the benchmarks' tables show, or that raw data without a table come to."""
    found: set[str] = set()
    for table in GENERATED.rglob("*.md"):
        found |= set(re.findall(r"\d+\.\d+", table.read_text(encoding="utf-8")))
    for data in GENERATED.rglob("imports.json"):
        raw = json.loads(data.read_text(encoding="utf-8"))
        sizes = [entry[0] for entry in raw["scheduler"]["packages"].values()]
        # Two packages that always come together are shown as one.
        sizes += [one + other for one, other in itertools.combinations(sizes, 2)]
        sizes += [raw["scheduler"][key] for key in ("rss_before", "rss_scheduler")]
        for forks in (raw["first_task"], raw["collection"], raw["collection_frozen"]):
            sizes += [statistics.median(fork[key] for fork in forks) for key in forks[0]]
        found |= {f"{size / MIB:.1f}" for size in sizes}
    return found


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if not d.is_relative_to(GENERATED)], ids=name)
def test_measured_figures_are_in_the_raw_data(document):
    text = document.read_text(encoding="utf-8")
    figures = re.findall(r"(\d[\d.,]*)(?: to (\d[\d.,]*))? (?:MiB|ms)\b", text)
    figures = [figure for pair in figures for figure in pair if figure]
    assert set(figures) - measured() == set()
