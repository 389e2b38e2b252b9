# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the choice of bases, and the summary of what ran inside tests."""

from __future__ import annotations

import itertools
import signal
from collections import defaultdict

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--base", action="append", default=[], help="only this base, where a test is about one; repeatable"
    )
    parser.addoption(
        "--patched-source",
        action="append",
        default=[],
        metavar="DIR",
        help="src of a distribution in a tree, before what is installed, for the fault tests; repeatable",
    )


def pytest_configure() -> None:
    # In a background job of a shell, or under nohup, these are ignored from the start, and then also by
    # every program that is started here to see how it takes them.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are marked as being about another base."""
    chosen = config.getoption("--base")
    others = [
        item for item in items if chosen and any(m.args[0] not in chosen for m in item.iter_markers("base"))
    ]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture
def summary(record_property):
    """Return a function that adds a line to a section of pytest's summary, whatever process it runs in."""
    return lambda section, line: record_property("summary", (section, line))


def pytest_terminal_summary(terminalreporter) -> None:
    sections = defaultdict(list)
    for report in itertools.chain(*terminalreporter.stats.values()):
        if getattr(report, "when", None) == "call":
            for section, line in (value for name, value in report.user_properties if name == "summary"):
                sections[section].append(line)
    for section, lines in sections.items():
        terminalreporter.section(section)
        for line in sorted(lines):
            terminalreporter.write_line(line)
