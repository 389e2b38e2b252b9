# SPDX-License-Identifier: Apache-2.0
"""What is written about a benchmark: table, what got worse, chart, raw data, and the index of a directory."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import psutil

from patchsetlib.measure import figures
from patchsetlib.measure.figures import Row, compared, table
from patchsetlib.measure.runner import Benchmark
from patchsetlib.shell import ui
from patchsetlib.shell.paths import display

_INTRODUCTION = """\
Written by `scripts/patchset bench`; do not edit. USS is what one process has for itself, PSS its fair part
of what is shared. *Better* and *worse*: by more than two runs of the same code were seen to differ, and in
all repeats."""
_COLOURS = ("#c1440e", "#e0a030", "#5a8f29", "#1f6f8b", "#7a5195", "#8a8a8a", "#404040", "#b05080")


# Raw data


def describe_machine() -> dict:
    """Return what the figures depend on, of this machine; nothing that tells whose it is."""
    return {
        "system": platform.system(),
        "kernel": platform.release().split("-")[0],
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory": psutil.virtual_memory().total,
        "load": os.getloadavg(),
        "root": os.geteuid() == 0,
    }


def write_json(path: Path, data: dict) -> None:
    """Write ``data`` so that it is readable and not long: each innermost list is one line."""
    text = json.dumps(data, indent=1)
    # A line break is never inside a JSON string, so this does not touch what strings say.
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r"\n\s*", " ", m[1]) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")


# Table and what got worse


def render(labels: Sequence[str], rows: Sequence[Row], *, terminal: bool) -> str:
    """
    Return the table as text: with colours and lines for a terminal, else as Markdown.

    :param labels: of the subjects, the reference first
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD if terminal else box.MARKDOWN)
    for heading in ("when", "what", "figure"):
        grid.add_column(heading, no_wrap=True)
    for heading in (*labels, *(f"{labels[number]} / {labels[0]}" for number in compared(labels))):
        grid.add_column(heading, justify="right", no_wrap=True)
    styles = {"better": "green", "worse": "bold red"}
    for when, group in itertools.groupby(rows, key=lambda row: row.figure.when):
        for row in group:
            cells = [when, row.figure.what, row.figure.unit, *map(row.text, range(len(labels)))]
            for number in compared(labels):
                cells.append(Text(row.ratio_text(number), styles.get(row.verdict(number), "")))
            grid.add_row(*cells)
        if terminal:
            grid.add_section()
    out = StringIO()
    # Wide enough that nothing is cut: a table that is cut shows a wrong number.
    Console(file=out, width=1000, force_terminal=terminal).print(grid)
    lines = [line.rstrip() if terminal else line.strip() for line in out.getvalue().splitlines()]
    return "\n".join(line for line in lines if line)


def conclusions(labels: Sequence[str], rows: Sequence[Row], panels: Sequence[tuple[str, str]]) -> list[str]:
    """Return one line for each figure that is drawn, and one for each that got worse."""
    lines = []
    for number in compared(labels):
        drawn = [row for what, unit in panels for row in _select(rows, what, unit)]
        worse = [row for row in rows if row.verdict(number) == "worse"]
        said = [(row, "") for row in drawn] + [(row, f"worse than {labels[0]}: ") for row in worse]
        for row, word in said:
            ratio = row.ratio(number)
            of = "" if ratio is None else f" ({ratio:.2f} of {labels[0]})"
            change = f"{row.text(0)} -> {row.text(number)}{of}"
            lines.append(f"{labels[number]}: {word}{row.figure}: {change}")
        if not worse:
            lines.append(f"{labels[number]}: nothing in the table is worse than {labels[0]}")
    return [
        *lines,
        "better and worse: by more than two runs of the same code were seen to differ "
        f"({figures.TOLERANCE:.0%} per process, {figures.TOTAL_TOLERANCE:.0%} in totals, "
        f"{figures.TIME_TOLERANCE:.0%} in times)",
    ]


def _select(rows: Sequence[Row], what: str, unit: str) -> list[Row]:
    return [row for row in rows if (row.figure.what, row.figure.unit) == (what, unit)]


# Chart


def _draw(
    labels: Sequence[str], rows: Sequence[Row], panels: Sequence[tuple[str, str]], heading: str, file: Path
) -> None:
    """Draw a panel of bars for each of ``panels``: the medians, with their ranges, grouped by ``when``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The same bytes for the same data, so that a chart in version control changes only with its data.
    matplotlib.rcParams.update({"svg.hashsalt": "patchset", "svg.fonttype": "none"})
    width = 0.8 / len(labels)
    figure, all_axes = pyplot.subplots(
        len(panels), 1, figsize=(9, 1.2 + 2.8 * len(panels)), layout="constrained", squeeze=False
    )
    for axes, (what, unit) in zip(all_axes[:, 0], panels, strict=True):
        found = _select(rows, what, unit)
        many = len(found) > 12
        for number, (label, colour) in enumerate(zip(labels, itertools.cycle(_COLOURS))):
            for group, row in enumerate(found):
                x = group + (number - (len(labels) - 1) / 2) * width
                value, values = row.value(number), row.samples[number] or (0,)
                axes.bar(x, value or 0, width * 0.9, color=colour, label=label if not group else None)
                axes.plot([x, x], [min(values), max(values)], color="black", linewidth=1)
                if not many:
                    text = "none" if value is None else f"{value:.{row.figure.digits}f}"
                    above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 7}
                    axes.annotate(text, (x, max(values)), **above)
        axes.set_xticks(range(len(found)), [row.figure.when for row in found])
        axes.tick_params("x", labelsize=6 if many else 10)
        axes.set_title(f"{what}: {unit}", fontsize=10)
        axes.margins(y=0.15)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    all_axes[0, 0].legend(loc="upper left", fontsize=8)
    figure.suptitle(heading, fontsize=11)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


# Files


def write(benchmark: Benchmark, raw: Path, directory: Path) -> list[Path]:
    """Write raw data and chart of a benchmark in place of those of the same name; return their paths."""
    files = [directory / raw.name]
    if directory != raw.parent:
        shutil.copy(raw, directory)
    data = json.loads(raw.read_text(encoding="utf-8"))
    labels = list(data["subjects"])
    rows = table(labels, data["runs"], benchmark.figures)
    if drawn := [panel for panel in benchmark.panels if _select(rows, *panel)]:
        files.append(directory / f"{raw.stem}.svg")
        _draw(labels, rows, drawn, title(data), files[-1])
    return files


def title(data: dict) -> str:
    """Return one line on what was run."""
    options = [
        f"{name} {' and '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in data["options"].items()
        if value not in (None, 0)
    ]
    return f"{data['benchmark']}, Airflow {data['base']}" + (f": {', '.join(options)}" if options else "")


def describe(data: dict) -> list[str]:
    """
    Return what a reader must know of how the figures came about, as lines of Markdown.

    ``note`` in the raw data is for what happened outside of the tool; the tool itself writes none.
    """
    machine, repeats = data["machine"], data["repeats"]
    pythons = sorted({subject["python"] for subject in data["subjects"].values()})
    often = "One run each."
    if repeats > 1:
        often = f"{repeats} runs each, interleaved: median (smallest-largest)."
    lines = [
        f"{often} {machine['cpus_usable']} CPUs ({machine['architecture']}), "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['system']} {machine['kernel']}, "
        f"Python {' and '.join(pythons)}, {data['created'][:10]}."
    ]
    if note := data.get("note"):
        lines.append(note)
    for label, subject in data["subjects"].items():
        line = f"- {label}: Airflow {subject['airflow']}"
        if subject["patches"]:
            patches = "patch" if len(subject["patches"]) == 1 else "patches"
            line += f" with {len(subject['patches'])} {patches}, commit `{subject['commit'][:12]}`"
        lines.append(line)
    return lines


def write_index(directory: Path, benchmarks: dict[str, Benchmark]) -> None:
    """
    Write ``README.md`` with the tables and charts of all benchmarks in ``directory``.

    The tables are made anew from the raw data; what another version of the tool wrote may be left out.
    """
    parts = ["# Benchmarks", "", _INTRODUCTION]
    for file in sorted(directory.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        if data.get("benchmark") not in benchmarks:
            continue
        labels = list(data["subjects"])
        try:
            about = describe(data)
            rows = table(labels, data["runs"], benchmarks[data["benchmark"]].figures)
        except (KeyError, TypeError, ValueError) as e:
            ui.warn(f"{display(file)} is left out: written by another version of this tool ({e!r})")
            continue
        parts += ["", f"## {title(data)}", "", *about, ""]
        for run in data["runs"]:
            if "error" in run:
                parts.append(f"Failed: {run['label']}, run {run['repeat']}: {run['error']}\n")
        parts.append(render(labels, rows, terminal=False))
        parts += ["", f"Raw data: [{file.name}]({file.name})"]
        if (drawn := file.with_suffix(".svg")).exists():
            parts += ["", f"![{title(data)}]({drawn.name})"]
    (directory / "README.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
