# SPDX-License-Identifier: Apache-2.0
"""
What all benchmarks have in common: interleaved runs, medians over them, and what is written about them.

A benchmark is a module (``benchmemory`` and others) with

- ``HELP`` and ``add_arguments(parser)``,
- ``options(args) -> dict``: its options, checked, fit for JSON,
- ``runner(subjects, options, directory)``: a context manager; what it yields measures one subject once,
  ``run(subject, home) -> dict``; ``home`` does not exist,
- ``figures(record) -> list[Figure]``: what the table shows of one such run, with one value each,
- ``PANELS``: which of these figures are drawn, see ``benchreport.chart``.
"""

from __future__ import annotations

import importlib
import re
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

from patchsetlib.measure import report
from patchsetlib.measure.benchmarks.subjects import Subject
from patchsetlib.measure.report import Figure
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError

NAMES = ("memory", "growth", "dispatch", "throughput", "gc")


def load(name: str) -> ModuleType:
    """Return the module of a benchmark."""
    return importlib.import_module(f"patchsetlib.measure.bench{name}")


def schedule(labels: Sequence[str], repeats: int) -> Iterator[tuple[int, str]]:
    """
    Yield (repeat, label) in the order of the runs.

    Every second round goes backwards, so that what changes over time, such as the load of the machine,
    does not favour those that come first.
    """
    for repeat in range(1, repeats + 1):
        for label in labels if repeat % 2 else reversed(labels):
            yield repeat, label


def run(
    module: ModuleType,
    subjects: Sequence[Subject],
    options: dict,
    repeats: int,
    directory: Path,
    save: Callable[[list[dict]], None] = lambda runs: None,
) -> list[dict]:
    """
    Run a benchmark, and return the records of its runs.

    A run that fails is a record with ``error`` instead of figures, and its files stay in ``directory``.

    :param directory: for the deployments; exists
    :param save: called with the records so far after each run, so that an interruption loses none
    """
    by_label = {subject.label: subject for subject in subjects}
    numbers = {label: number for number, label in enumerate(by_label, 1)}
    runs: list[dict] = []
    with module.runner(subjects, options, directory) as one:
        for repeat, label in schedule(list(by_label), repeats):
            ui.info(f"{label}: run {repeat} of {repeats}")
            home = directory / f"{repeat}.{numbers[label]}-{re.sub(r'[^A-Za-z0-9.]+', '-', label)}"
            record: dict = {"label": label, "repeat": repeat, "load_before": report.load()}
            by_label[label].check()
            try:
                record |= one(by_label[label], home)
            except PatchsetError as e:
                ui.warn(f"{label}: run {repeat} failed: {e}")
                record["error"] = e.problem
            else:
                by_label[label].check()
                for path in directory.glob(f"{home.name}*"):
                    shutil.rmtree(path, ignore_errors=True)
            runs.append(record)
            save(runs)
    return runs


def rows(module: ModuleType, labels: Sequence[str], runs: Sequence[dict]) -> list[Figure]:
    """Return the table: for each figure the median of each subject, with the range over its runs."""
    samples: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    models: dict[tuple[str, str, str], Figure] = {}
    for record in runs:
        if "error" in record:
            continue
        for figure in module.figures(record):
            key = (figure.when, figure.what, figure.unit)
            models.setdefault(key, figure)
            values = samples.setdefault(key, {})
            if figure.values[0] is not None:
                values.setdefault(record["label"], []).append(figure.values[0])
    table = []
    for key, model in models.items():
        found = [samples[key].get(label) for label in labels]
        table.append(
            replace(
                model,
                values=tuple(None if each is None else statistics.median(each) for each in found),
                ranges=tuple(None if each is None else (min(each), max(each)) for each in found),
            )
        )
    return table


def result(
    name: str, base: str, subjects: Sequence[Subject], options: dict, repeats: int, machine: dict, runs: list
) -> dict:
    """Return everything about a benchmark that is worth keeping, fit for JSON."""
    described = {subject.label: subject.as_json() for subject in subjects}
    # Written out once: the same hundred lines for each would hide the few that differ.
    common = subjects[0].description["distributions"]
    for subject in subjects[1:]:
        own = subject.description["distributions"]
        differing = {k: own.get(k) for k in sorted({*own, *common}) if own.get(k) != common.get(k)}
        described[subject.label]["distributions"] = {f"unlike {subjects[0].label}": differing}
    return {
        "benchmark": name,
        "base": base,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "options": options,
        "repeats": repeats,
        "subjects": described,
        "runs": runs,
    }


def failures(runs: Sequence[dict]) -> int:
    """Return how many runs failed."""
    return sum("error" in record for record in runs)
