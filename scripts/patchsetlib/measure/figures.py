# SPDX-License-Identifier: Apache-2.0
"""From the records of runs to the rows of a table: medians, ranges, and what is better or worse."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchsetlib.measure.memory import Sample

MIB = 2**20
# Ratios nearer to 1 are not called better or worse: so much did two runs of the same code differ, stock
# against stock on two cores that had other work too. Totals vary most: some workers of stock end with
# 80 MiB USS rather than 23, and how many they are is different each time.
TOLERANCE = 0.10
TOTAL_TOLERANCE = 0.20
TIME_TOLERANCE = 0.35


@dataclass(frozen=True)
class Figure:
    """One quantity that a run came to."""

    when: str
    what: str
    unit: str
    value: float | None
    """None where there is nothing to measure."""
    better: str | None = "less"
    """``less``, ``more``, or None if neither is better."""
    tolerance: float = TOLERANCE
    digits: int = 1

    def __str__(self) -> str:
        return f"{self.when}: {self.what}, {self.unit}"


def mib(when: str, what: str, unit: str, size: float | None, tolerance: float = TOLERANCE) -> Figure:
    """Return a figure in MiB, given bytes."""
    return Figure(when, what, f"{unit}, MiB", None if size is None else size / MIB, tolerance=tolerance)


def seconds(when: str, what: str, unit: str, value: float | None, digits: int = 1) -> Figure:
    return Figure(when, what, f"{unit}, s", value, tolerance=TIME_TOLERANCE, digits=digits)


def milliseconds(when: str, what: str, unit: str, value: float | None, digits: int = 1) -> Figure:
    """Return a figure that is a time in milliseconds, given seconds."""
    scaled = None if value is None else value * 1000
    return Figure(when, what, f"{unit}, ms", scaled, tolerance=TIME_TOLERANCE, digits=digits)


def succeeded(when: str, dag_run: dict) -> Figure:
    """Return how many tasks of a Dag run succeeded; one that is lost is worse."""
    return Figure(when, "tasks", f"succeeded of {dag_run['tasks']}", dag_run["succeeded"], "more", 0.0, 0)


def processes(when: str, what: str, sample: Sample, roles: tuple[str, ...]) -> list[Figure]:
    """Return the median USS and PSS of the processes in some roles."""
    return [
        mib(when, what, f"{figure.upper()} per process", sample.median(figure, *roles))
        for figure in ("uss", "pss")
    ]


def whole_run(record: dict) -> list[Figure]:
    """Return how a run on a deployment went."""
    return [
        succeeded("run", record["dag_run"]),
        seconds("run", "Dag run", "queued to end", record["dag_run"]["seconds"]),
        seconds("run", "Airflow", "start to ready", record["events"]["ready"]),
    ]


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the value below which the part ``q`` of the values lies, by nearest rank; None of none."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))] if values else None


def spent(record: dict, since: str, until: str) -> dict[str, float]:
    """Return the CPU seconds by role between two events of a run."""
    before = record["cpu"][since]
    return {role: seconds - before.get(role, 0) for role, seconds in record["cpu"][until].items()}


@dataclass(frozen=True)
class Row:
    """One row of the table: the same quantity of every subject, the reference first."""

    figure: Figure
    """What it is; its value is that of the first run."""
    samples: tuple[tuple[float, ...], ...]
    """The values over the repeats, for each subject; empty where there is nothing to measure."""

    def value(self, subject: int) -> float | None:
        """Return the median over the repeats."""
        return statistics.median(self.samples[subject]) if self.samples[subject] else None

    def ratio(self, subject: int) -> float | None:
        """Return the value as a multiple of the reference; None if that is missing or not positive."""
        value, reference = self.value(subject), self.value(0) or 0
        return value / reference if value is not None and reference > 0 else None

    def verdict(self, subject: int) -> str:
        """Return ``better``, ``worse`` or ``same``, against the reference; empty if neither is better."""
        value, reference = self.value(subject), self.value(0) or 0
        if self.figure.better is None or value is None:
            return ""
        one, other, ratio = self.samples[subject], self.samples[0], self.ratio(subject)
        overlap = bool(other) and min(one) <= max(other) and min(other) <= max(one)
        near = ratio is not None and abs(ratio - 1) <= self.figure.tolerance
        if overlap or near or self._shown(value) == self._shown(reference):
            return "same"
        return "better" if (value < reference) == (self.figure.better == "less") else "worse"

    def _shown(self, value: float) -> str:
        return f"{value:.{self.figure.digits}f}"

    def text(self, subject: int) -> str:
        """Return the median, and the range if the repeats came out differently."""
        values = self.samples[subject]
        if not values:
            return "none"
        middle, low, high = map(self._shown, (statistics.median(values), min(values), max(values)))
        return middle if low == high else f"{middle} ({low}-{high})"

    def ratio_text(self, subject: int) -> str:
        """Return ratio and verdict, where they say something."""
        ratio, word = self.ratio(subject), self.verdict(subject)
        number = "" if ratio is None or self.figure.better is None else f"{ratio:.2f}"
        return f"{number} {word}".strip() if word in ("better", "worse") else number


def table(labels: Sequence[str], runs: Sequence[dict], figures: Callable[[dict], list[Figure]]) -> list[Row]:
    """
    Return the rows that some runs come to, in the order of the figures.

    :param labels: of the subjects, the reference first
    :param runs: records with a ``label``; those with an ``error`` are left out
    :param figures: what the table shows of one record
    """
    rows: dict[str, tuple[Figure, dict[str, list[float]]]] = {}
    for record in runs:
        for figure in figures(record) if "error" not in record else ():
            _, samples = rows.setdefault(str(figure), (figure, defaultdict(list)))
            if figure.value is not None:
                samples[record["label"]].append(figure.value)
    # One that only a later subject has stands with the others of its moment.
    moments = list(dict.fromkeys(figure.when for figure, _ in rows.values()))
    return [
        Row(figure, tuple(tuple(samples[label]) for label in labels))
        for figure, samples in sorted(rows.values(), key=lambda row: moments.index(row[0].when))
    ]


def compared(labels: Sequence[str]) -> list[int]:
    """Return which subjects are compared with the first: all of a few, otherwise only ``patched``."""
    return [n for n, label in enumerate(labels) if n and (len(labels) <= 4 or label == "patched")]
