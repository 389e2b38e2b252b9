# SPDX-License-Identifier: Apache-2.0
"""What is written about a benchmark: table, chart, raw data, and the index of a directory of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from patchsetlib.measure import report
from patchsetlib.measure.bench import NAMES, load, rows
from patchsetlib.measure.report import Figure
from patchsetlib.shell import ui
from patchsetlib.shell.paths import display

_INTRODUCTION = """\
Written by `scripts/patchset bench`; do not edit. USS is what one process has for itself, PSS its fair part
of what is shared. *Better* and *worse*: by more than two runs of the same code were seen to differ, and in
all repeats."""
_COLOURS = ("#c1440e", "#e0a030", "#5a8f29", "#1f6f8b", "#7a5195", "#8a8a8a", "#404040", "#b05080")


@dataclass(frozen=True)
class Files:
    """The files of one benchmark in ``directory``."""

    directory: Path
    stem: str

    @property
    def data(self) -> Path:
        return self.directory / f"{self.stem}.json"

    @property
    def charts(self) -> tuple[Path, Path]:
        return self.directory / f"{self.stem}.png", self.directory / f"{self.stem}.svg"


def title(result: dict) -> str:
    """Return one line on what was run."""
    options = ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in _options(result["options"]))
    return f"{result['benchmark']}, Airflow {result['base']}" + (f": {options}" if options else "")


def _options(options: dict) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if value in (None, False) or (name == "concurrency" and not value):
            continue
        yield name, " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def describe(result: dict) -> list[str]:
    """
    Return what a reader must know of how the figures came about, as lines of Markdown.

    ``note`` in the raw data is for what happened outside of the tool; the tool itself writes none.
    """
    machine, repeats = result["machine"], result["repeats"]
    pythons = sorted({subject["python"] for subject in result["subjects"].values()})
    often = "One run each."
    if repeats > 1:
        often = f"{repeats} runs each, interleaved: median (smallest-largest)."
    lines = [
        f"{often} {machine['cpus_usable']} CPUs ({machine['architecture']}), "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['system']} {machine['kernel']}, "
        f"Python {' and '.join(pythons)}, {result['created'][:10]}."
    ]
    if note := result.get("note"):
        lines.append(note)
    for label, subject in result["subjects"].items():
        line = f"- {label}: Airflow {subject['airflow']}"
        if subject["commits"]:
            patches = "patch" if len(subject["commits"]) == 1 else "patches"
            line += f" with {len(subject['commits'])} {patches}, commit `{subject['commits'][-1][:12]}`"
        lines.append(line)
    return lines


def chart(
    labels: Sequence[str],
    table: Sequence[Figure],
    panels: Sequence[tuple[str, str]],
    heading: str,
    files: Sequence[Path],
) -> None:
    """
    Draw one panel of bars for each of ``panels``, with the range over the repeats, to each of ``files``.

    :param panels: what and unit of the figures to draw; the bars are grouped by ``when``
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Same bytes for the same data, so that a chart in version control changes only with its data.
    matplotlib.rcParams["svg.hashsalt"] = "patchset"
    drawn = [(what, unit, found) for what, unit in panels if (found := _select(table, what, unit))]
    if not drawn:
        return
    width = 0.8 / len(labels)
    height = 1.2 + 2.8 * len(drawn)
    figure, all_axes = pyplot.subplots(
        len(drawn), 1, figsize=(9, height), layout="constrained", squeeze=False
    )
    for axes, (what, unit, found) in zip(all_axes[:, 0], drawn, strict=True):
        top = max((_high(row, run) for row in found for run in range(len(labels))), default=0)
        for number, (label, colour) in enumerate(zip(labels, itertools.cycle(_COLOURS))):
            for group, row in enumerate(found):
                x = group + (number - (len(labels) - 1) / 2) * width
                value = row.values[number]
                axes.bar(x, value or 0, width * 0.9, color=colour, label=label if not group else None)
                text = "none" if value is None else f"{value:.{row.digits}f}"
                axes.annotate(
                    text, (x, _high(row, number)), (0, 3), textcoords="offset points", ha="center", fontsize=7
                )
                if row.ranges and row.ranges[number]:
                    axes.plot([x, x], row.ranges[number], color="black", linewidth=1)
        axes.set_xticks(range(len(found)), [row.when for row in found])
        axes.set_title(f"{what}: {unit}", fontsize=10)
        axes.set_ylim(0, top * 1.15 or 1)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    all_axes[0, 0].legend(loc="upper left", fontsize=8)
    figure.suptitle(heading, fontsize=11)
    for file in files:
        figure.savefig(file, dpi=100, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)


def _high(row: Figure, run: int) -> float:
    """Return the largest value over the repeats."""
    bounds = row.ranges[run] if row.ranges else None
    return bounds[1] if bounds else row.values[run] or 0


def _select(table: Sequence[Figure], what: str, unit: str) -> list[Figure]:
    # Rows on processes of which some could not be read say so after the role.
    return [
        row for row in table if row.unit == unit and (row.what == what or row.what.startswith(f"{what} ("))
    ]


def write(module: ModuleType, result: dict, files: Files) -> None:
    """
    Write raw data and charts of a benchmark in place of those of the same name, and the index anew.

    :param module: the benchmark, see ``bench``
    """
    labels = list(result["subjects"])
    report.write_json(files.data, result)
    chart(labels, rows(module, labels, result["runs"]), module.PANELS, title(result), files.charts)
    write_index(files.directory)


def write_index(directory: Path) -> Path:
    """
    Write ``README.md`` with the tables and charts of all benchmarks in ``directory``, and return it.

    The tables are made anew from the raw data; what another version of the tool wrote may be left out.
    """
    parts = ["# Benchmarks", "", _INTRODUCTION]
    for data in sorted(directory.glob("*.json")):
        result = json.loads(data.read_text(encoding="utf-8"))
        if result.get("benchmark") not in NAMES:
            continue
        labels = list(result["subjects"])
        try:
            table = rows(load(result["benchmark"]), labels, result["runs"])
        except (KeyError, TypeError, ValueError) as e:
            ui.warn(f"{display(data)} is left out: written by another version of this tool ({e!r})")
            continue
        parts += ["", f"## {title(result)}", "", *describe(result), ""]
        if failed := [record for record in result["runs"] if "error" in record]:
            parts += [f"Failed: {each['label']}, run {each['repeat']}: {each['error']}" for each in failed]
            parts.append("")
        parts += [report.render(labels, table, terminal=False), "", f"Raw data: [{data.name}]({data.name})"]
        chart_file = Files(directory, data.stem).charts[1]
        if chart_file.exists():
            parts += ["", f"![{title(result)}]({chart_file.name})"]
    index = directory / "README.md"
    index.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return index
