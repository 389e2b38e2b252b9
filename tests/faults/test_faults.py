# SPDX-License-Identifier: Apache-2.0
"""
Every fault that LocalExecutor is to stand, on stock Airflow and on the patched one.

On stock those that ``faults.toml`` of the base names must fail: a test that passes there shows nothing. What
stock does in others is a matter of chance or of other code, and only shown.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator

import pytest
from inside import registry
from servers import JOBS, Server, known

from patchsetlib.patches import base as bases

pytestmark = pytest.mark.network
SCENARIOS = registry.load()
# What LocalExecutor decides, and not the pool, which is the same on all bases.
EVERYWHERE = (
    *("idle_workers_killed", "busy_workers_killed", "scheduler_killed", "more_work_than_slots"),
    *("secret_in_a_workload", "end[workers killed]", "terminate[busy]"),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = bases.chosen(metafunc.config.getoption("--base"))
    tried = [base for base in chosen if base.released and not base.is_provider]
    metafunc.parametrize("fault", [p for base in tried for p in _parameters(base, base is tried[0])])


def _parameters(base: bases.Base, is_first: bool):
    """Yield a parameter for each scenario on each variant of a base."""
    expected = known(base)
    unknown = {n for table in expected.values() for names in table.values() for n in names} - set(SCENARIOS)
    assert not unknown, f"{base.name}/faults.toml names no scenarios: {unknown}"
    for variant in JOBS:
        for name, scenario in SCENARIOS.items():
            if variant == "stock" and scenario.start_method != "fork":
                continue
            # On the others, most of it is the same code.
            elsewhere = not is_first and (variant != "patched" or not name.startswith(EVERYWHERE))
            is_nightly = scenario.nightly or elsewhere or _judge(expected, variant, name) is None
            # All run on servers that the process with the first of them starts.
            marks = [pytest.mark.xdist_group(f"faults of {base.name}")]
            marks += [pytest.mark.nightly] if is_nightly else []
            yield pytest.param((base.name, variant, name), id=f"{base.name}-{variant}-{name}", marks=marks)


def _judge(expected: dict, variant: str, name: str) -> bool | None:
    """Return whether a scenario must pass; None if either is right."""
    if variant == "stock":
        return False if name in expected.get("stock", {}).get("fails", ()) else None
    return None if name in expected.get(variant, {}).get("unfixed", ()) else True


@pytest.fixture(scope="session")
def servers(request, tmp_path_factory) -> Iterator:
    """Return a function that gives the servers of a base by variant, all running beside each other."""
    wanted = defaultdict(lambda: defaultdict(list))
    for item in request.session.items:
        if fault := getattr(item, "callspec", None) and item.callspec.params.get("fault"):
            base, variant, name = fault
            wanted[base][variant].append(name)
    started = []

    @functools.cache
    def start(base: str) -> dict[str, Server]:
        sources = request.config.getoption("--patched-source")
        for variant, names in wanted[base].items():
            directory = tmp_path_factory.mktemp(f"{base}-{variant}")
            started.append(Server(bases.load(base), variant, names, directory, sources))
        return dict(zip(wanted[base], started[-len(wanted[base]) :], strict=True))

    yield start
    for server in started:
        server.stop()


def test_fault(fault, servers, summary):
    base, variant, name = fault
    server = servers(base)[variant]
    result = server.results.get(name, {"broken": "no result"})
    if result["broken"]:
        # Not an assertion: it would look like the failure that is expected of stock.
        raise RuntimeError(f"the scenario itself is wrong: {result['broken']}\n{server.log_of(name)}")
    if result.get("absent"):
        pytest.skip(f"{base} has no {result['absent']}")
    problems = ", ".join(result["problems"])
    summary("LocalExecutor under faults", f"{name:60} {base:9} {variant:11} {problems or 'ok'}")
    must_pass = _judge(known(bases.load(base)), variant, name)
    if must_pass:
        assert not problems, f"{problems}\n{server.log_of(name)}"
    elif must_pass is False:
        assert problems, "stock stands it: name it no more in faults.toml"
