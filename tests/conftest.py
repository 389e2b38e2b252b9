# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the choice of bases, and the summary of what ran inside tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--base", action="append", default=[], help="only this base, where a test is about one; repeatable"
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


def recorded(terminalreporter, name: str) -> Iterator[str]:
    """Yield what tests have said with ``record_property(name, ...)``, in whatever process they ran."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                yield from (value for key, value in report.user_properties if key == name)


def pytest_terminal_summary(terminalreporter) -> None:
    lines = sorted(recorded(terminalreporter, "unit tests"))
    if lines:
        terminalreporter.section("unit tests of the series")
    for line in lines:
        terminalreporter.write_line(line)
