# SPDX-License-Identifier: Apache-2.0
"""
Tables, JSON and charts of measured runs (see ``workload.measure``).

The first run is the reference, the others are compared with it. What got worse is shown as plainly as what
got better.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
# Ratios nearer to 1 are not called better or worse: so much did two runs of the same code differ, stock
# against stock on two cores that had other work too. Totals vary most: some workers of stock end with
# 80 MiB USS rather than 23, and how many they are is different each time.
TOLERANCE = 0.10
TOTAL_TOLERANCE = 0.20
TIME_TOLERANCE = 0.35

_MOMENTS = {"idle": "before any task", "after": "after the tasks"}
_ROLES = ("scheduler", "serve-logs", "snapshot", "workers", "other")
_ALWAYS = ("scheduler", "serve-logs", "workers")
USS_EACH = "USS per process, MiB"
PSS_TOTAL = "PSS total, MiB"
_FIGURES = {
    "count": "processes",
    "uss_median": USS_EACH,
    "uss_max": "USS of the largest, MiB",
    "pss_median": "PSS per process, MiB",
    "pss_total": PSS_TOTAL,
}
# With more runs than this the table has no columns of ratios: it would be wider than can be read.
_MOST_COMPARED = 4
_BRIEF = ("count", "uss_median", "pss_median")


@dataclass(frozen=True)
class Figure:
    """One row of the table: the same quantity of every run."""

    when: str
    what: str
    unit: str
    values: tuple[float | None, ...]
    """One for each run; None where there is nothing to measure."""
    better: str | None = "less"
    """``less``, ``more``, or None if neither is better."""
    tolerance: float = TOLERANCE
    digits: int = 1
    ranges: tuple[tuple[float, float] | None, ...] = ()
    """Smallest and largest value over the repeats of each run, if it was repeated."""

    def ratio(self, run: int) -> float | None:
        """Return the value of a run as a multiple of the reference; None if there is none."""
        value, reference = self.values[run], self.values[0]
        return value / reference if value is not None and reference else None

    def verdict(self, run: int) -> str:
        """Return ``better``, ``worse`` or ``same``, against the reference; empty if neither is better."""
        value, reference = self.values[run], self.values[0]
        if self.better is None or value is None or value == reference:
            return "" if self.better is None or value is None else "same"
        if self.ranges and self._overlap(run):
            return "same"
        reference = reference or 0
        if reference and abs(value / reference - 1) <= self.tolerance:
            return "same"
        return "better" if (value < reference) == (self.better == "less") else "worse"

    def _overlap(self, run: int) -> bool:
        """Return whether some repeats of a run and of the reference came out in the opposite order."""
        one, other = self.ranges[run], self.ranges[0]
        return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]

    def text(self, run: int) -> str:
        """Return the value, and the range if it was repeated and came out differently."""
        value = self.values[run]
        if value is None:
            return "none"
        text = f"{value:.{self.digits}f}"
        if not self.ranges or (low_high := self.ranges[run]) is None:
            return text
        low, high = (f"{bound:.{self.digits}f}" for bound in low_high)
        return text if low == high else f"{text} ({low}-{high})"

    def ratio_text(self, run: int) -> str:
        """Return ratio and verdict, where they say something."""
        ratio = self.ratio(run)
        number = "" if ratio is None or self.better is None else f"{ratio:.2f}"
        word = self.verdict(run)
        return f"{number} {word}".strip() if word in ("better", "worse") else number


def figures(runs: Sequence[dict]) -> list[Figure]:
    """Return what the table of these runs shows, in its order."""
    rows: list[Figure] = []
    moments = _MOMENTS | {
        name: name for name in runs[0]["snapshots"] if name not in _MOMENTS and name != "peak"
    }
    for key, when in moments.items():
        snapshots = [run["snapshots"][key]["roles"] for run in runs]
        for role in _ROLES:
            if role in _ALWAYS or any(snapshot[role]["count"] for snapshot in snapshots):
                rows += role_figures(when, role, [snapshot[role] for snapshot in snapshots])
        rows += tree_figures(when, snapshots)
    peaks = [run["snapshots"]["peak"]["roles"]["tree"] for run in runs]
    rows += tree_figures("at the peak", [{"tree": peak} for peak in peaks])[1:]
    return rows + run_figures(runs)


def run_figures(runs: Sequence[dict]) -> list[Figure]:
    """Return the rows on tasks and times."""
    rows: list[Figure] = []
    succeeded = tuple(run["dag_run"]["succeeded"] for run in runs)
    offered = runs[0]["dag_run"]["tasks"]
    rows.append(Figure("run", "tasks succeeded", f"of {offered}", succeeded, "more", 0.0, 0))
    seconds = tuple(run["dag_run"]["seconds"] for run in runs)
    rows.append(Figure("run", "Dag run, queued to end", "s", seconds, "less", TIME_TOLERANCE))
    ready = tuple(run["events"]["ready"] for run in runs)
    rows.append(Figure("run", "start to ready", "s", ready, "less", TIME_TOLERANCE))
    return rows


def _mib(values: Sequence[float | None]) -> tuple[float | None, ...]:
    return tuple(None if value is None else value / MIB for value in values)


def role_figures(when: str, role: str, summaries: list[dict], *, brief: bool = False) -> list[Figure]:
    """
    Return the rows on one role at one moment, given its ``memory.summarize`` in each run.

    :param brief: only count and medians, and no count where it is one
    """
    counts = tuple(summary["count"] for summary in summaries)
    rows = []
    if not brief or counts != (1,) * len(counts):
        rows.append(Figure(when, role, _FIGURES["count"], counts, None, digits=0))
    role = _label(role, summaries)
    # Of one process, the median says it all.
    for figure in _FIGURES if max(counts) > 1 and not brief else _BRIEF:
        if figure != "count":
            values = _mib([summary[figure] for summary in summaries])
            tolerance = TOLERANCE if figure.endswith("_median") else TOTAL_TOLERANCE
            rows.append(Figure(when, role, _FIGURES[figure], values, tolerance=tolerance))
    return rows


def _label(what: str, summaries: list[dict]) -> str:
    unreadable = max(summary["unreadable"] for summary in summaries)
    return f"{what} (without {unreadable} unreadable)" if unreadable else what


def tree_figures(when: str, snapshots: list[dict]) -> list[Figure]:
    """Return the rows on the whole tree at one moment, given its ``memory.tree_summary`` in each run."""
    trees = [snapshot["tree"] for snapshot in snapshots]
    counts = tuple(tree["count"] for tree in trees)
    values = _mib([tree["pss_total"] for tree in trees])
    return [
        Figure(when, "whole tree", _FIGURES["count"], counts, None, digits=0),
        Figure(when, _label("whole tree", trees), _FIGURES["pss_total"], values, tolerance=TOTAL_TOLERANCE),
    ]


def render(names: Sequence[str], rows: Sequence[Figure], *, terminal: bool) -> str:
    """
    Return the table as text: with colours and lines for a terminal, else as Markdown.

    :param names: names of the runs, the reference first
    """
    from io import StringIO

    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if terminal else box.MARKDOWN)
    for heading in ("when", "what", "figure"):
        table.add_column(heading, no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    compared = range(1, len(names)) if len(names) <= _MOST_COMPARED else ()
    for run in compared:
        table.add_column(f"{names[run]} / {names[0]}", justify="right", no_wrap=True)
    colours = {"better": "green", "worse": "bold red"}
    before: Figure | None = None
    for row in rows:
        if terminal and before is not None and before.when != row.when:
            table.add_section()
        # On a terminal what is said once need not be said again; as Markdown each row stands alone.
        new_when = not terminal or before is None or before.when != row.when
        new_what = new_when or before is None or before.what != row.what
        cells = [row.when if new_when else "", row.what if new_what else "", row.unit]
        cells += [row.text(run) for run in range(len(names))]
        for run in compared:
            colour = colours.get(row.verdict(run)) if terminal else None
            text = row.ratio_text(run)
            cells.append(f"[{colour}]{text}[/]" if colour else text)
        table.add_row(*cells)
        before = row
    out = StringIO()
    # Wide enough that nothing is cut: a table that is cut shows a wrong number.
    Console(file=out, width=1000, force_terminal=terminal, no_color=_no_color()).print(table)
    lines = [line.strip() if not terminal else line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(line for line in lines if line)


def _no_color() -> bool:
    return bool(os.environ.get("NO_COLOR"))


def conclusions(names: Sequence[str], rows: Sequence[Figure]) -> list[str]:
    """Return one line on the size of the whole tree for each run, and one for each figure that got worse."""
    lines = []
    for run in range(1, len(names)):
        for row in rows:
            if (
                row.what.startswith("whole tree")
                and row.unit == _FIGURES["pss_total"]
                and row.ratio(run) is not None
            ):
                lines.append(
                    f"{names[run]}: scheduler's process tree {row.when}: "
                    f"{row.text(0)} -> {row.text(run)} MiB PSS ({row.ratio(run):.2f} of {names[0]})"
                )
        worse = [row for row in rows if row.verdict(run) == "worse"]
        for row in worse:
            ratio = row.ratio(run)
            times = "" if ratio is None else f" (x {ratio:.2f})"
            lines.append(
                f"{names[run]}: worse than {names[0]}: {row.when}: {row.what}, {row.unit}: "
                f"{row.text(0)} -> {row.text(run)}{times}"
            )
        if not worse:
            lines.append(f"{names[run]}: nothing in the table is worse than {names[0]}")
    lines.append(
        "better and worse: by more than two runs of the same code were seen to differ "
        f"({TOLERANCE:.0%} per process, {TOTAL_TOLERANCE:.0%} in totals, {TIME_TOLERANCE:.0%} in times)"
    )
    return lines


def caveats(runs: Sequence[dict]) -> list[str]:
    """Return what a reader of the figures must know about how they were measured."""
    lines = []
    for run in runs:
        name, sampling = run["name"], run["sampling"]
        if sampling["unreadable"]:
            lines.append(
                f"{name}: up to {sampling['unreadable']} processes could not be read (only root may read "
                "those that have run a task), and are not in any USS or PSS"
            )
        for key, snapshot in run["snapshots"].items():
            if snapshot["settled"] is False:
                lines.append(f"{name}: the process tree was not at rest for the snapshot {key!r}")
        if run["dag_run"]["succeeded"] != run["dag_run"]["tasks"]:
            lines.append(f"{name}: not all tasks succeeded: {run['dag_run']['states']}")
    return lines


def describe_machine() -> dict:
    """Return what the figures depend on, of this machine; nothing that tells whose it is."""
    import psutil

    return {
        "system": platform.system(),
        "kernel": platform.release().split("-")[0],
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "load_before": load(),
        "root": os.geteuid() == 0,
    }


def load() -> list[float]:
    """Return the machine's load averages."""
    return [round(value, 2) for value in os.getloadavg()]


def write_json(path: Path, data: dict) -> None:
    """Write ``data`` so that it is readable and not long: each innermost list is one line."""
    text = json.dumps(data, indent=1)
    # A line break is never inside a JSON string, so this does not touch what strings say.
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r"\n\s*", " ", m[1]) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")


def chart(runs: Sequence[dict], title: str, files: Sequence[Path]) -> None:
    """
    Draw PSS of the whole tree and USS of the workers over time, to each of ``files`` by its suffix.

    Time 0 is the start of the Dag run.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from patchsetlib.measure.memory import WORKERS

    # Same bytes for the same data, so that a chart in version control changes only with its data.
    matplotlib.rcParams["svg.hashsalt"] = "patchset"
    colours = ("#c1440e", "#1f6f8b", "#5a8f29", "#7a5195", "#8a8a8a")
    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 7), layout="constrained")
    for run, colour in zip(runs, itertools.cycle(colours)):
        zero = run["events"]["triggered"]
        times = [sample["time"] - zero for sample in run["samples"]]
        tree = [sum(pss or 0 for _, _, _, pss in sample["processes"]) / MIB for sample in run["samples"]]
        workers = [
            sum(uss or 0 for _, role, uss, _ in sample["processes"] if role in WORKERS) / MIB
            for sample in run["samples"]
        ]
        upper.plot(times, tree, color=colour, label=run["name"])
        lower.plot(times, workers, color=colour, label=run["name"])
        for key in ("idle", "after"):
            snapshot = run["snapshots"][key]
            x, y = snapshot["time"] - zero, snapshot["roles"]["tree"]["pss_total"] / MIB
            upper.plot([x], [y], "o", color=colour)
            upper.annotate(f"{y:.0f}", (x, y), xytext=(0, 6), textcoords="offset points", color=colour)
        finished = run["events"]["finished"] - zero
        for axes in (upper, lower):
            axes.axvline(finished, color=colour, linewidth=0.8, linestyle=":")
    upper.set_title(title)
    upper.set_ylabel("PSS of the scheduler's process tree, MiB")
    lower.set_ylabel("USS of all workers, MiB")
    lower.set_xlabel("seconds since the Dag run was triggered (dotted: its end; dots: the table's moments)")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    for file in files:
        figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)
