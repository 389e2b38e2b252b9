# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the choice of bases, and the summary of what ran inside of tests."""

from __future__ import annotations

import signal

import pytest

RESULTS = pytest.StashKey[list[str]]()
PASSED = pytest.StashKey[list[int]]()


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


@pytest.fixture
def report(request):
    """Return a function that keeps a line, and a number of passed unit tests of patches, for the summary."""

    def add(line: str, passed: int = 0) -> None:
        request.config.stash.setdefault(RESULTS, []).append(line)
        if passed:
            request.config.stash.setdefault(PASSED, []).append(passed)

    return add


def pytest_terminal_summary(terminalreporter, config) -> None:
    lines = config.stash.get(RESULTS, [])
    if lines:
        terminalreporter.section("unit tests of the series")
    for line in lines:
        terminalreporter.write_line(line)
    if passed := config.stash.get(PASSED, []):
        terminalreporter.write_line(
            f"unit tests of the series: {sum(passed)} passed at {len(passed)} commits"
        )
