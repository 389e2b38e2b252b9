# SPDX-License-Identifier: Apache-2.0
"""``bench``: measurements of stock and patched, and of any other Airflow, in one run."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

from patchsetlib.measure import database, report, runner
from patchsetlib.measure.benchmarks import BENCHMARKS
from patchsetlib.measure.figures import table
from patchsetlib.measure.runner import Benchmark, Option
from patchsetlib.measure.subjects import subjects
from patchsetlib.patches import base as bases
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display, new_directory, work_dir

HELP = "measure stock against patched: memory, growth, throughput, dispatch, gc, imports, soak or edge"
_BUSY = Option("busy", 0, "processes that spin beside it", least=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(metavar="NAME", dest="benchmark", required=True)
    for name, benchmark in BENCHMARKS.items():
        each = names.add_parser(
            name, help=benchmark.help, description=f"{benchmark.help[:1].upper()}{benchmark.help[1:]}."
        )
        add_options(each, benchmark, repeats=2)


def add_options(parser: argparse.ArgumentParser, benchmark: Benchmark, *, repeats: int) -> None:
    """Add the options of a benchmark, and those that all have in common."""
    parser.set_defaults(described=benchmark, url=None, variant=[])
    which = "one that patchset status lists (default: the newest stable release)"
    parser.add_argument("base", nargs="?", metavar="BASE", help=which)
    for option in (*benchmark.options, _BUSY, Option("repeats", repeats, "runs of each, interleaved")):
        option.add(parser)
    if benchmark.deploys:
        parser.add_argument(
            "--database", dest="url", metavar="URL", help="SQLAlchemy URL of a server (default: SQLite)"
        )
        parser.add_argument(
            "--variant",
            action="append",
            metavar="[LABEL=]SECTION.OPTION=VALUE",
            help="measure patched with this configuration as well; repeatable",
        )
    parser.add_argument(
        "--each", action="store_true", help="measure the series after each of its patches as well"
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="BASE|[LABEL=]PYTHON",
        help="another base, stock and patched, or any installed Airflow by its Python; repeatable",
    )
    parser.add_argument("--python", metavar="X.Y", help="Python version (default: the base's)")
    parser.add_argument(
        "--output", metavar="DIR", help="where to put the results; those of the same name there are replaced"
    )


def run(args: argparse.Namespace) -> int:
    if sys.platform != "linux":
        raise PatchsetError("PSS can only be measured on Linux", "run it there, or in a Linux container")
    benchmark: Benchmark = args.described
    options = {option.name: getattr(args, option.name) for option in (*benchmark.options, _BUSY)}
    if benchmark.deploys:
        options["database"] = database.kind(args.url)
    base = bases.load(args.base) if args.base else bases.default()
    measured = subjects(
        base, python_version=args.python, each=args.each, variants=args.variant, against=args.against
    )
    directory = new_directory(work_dir() / base.name / args.verb)
    output = Path(args.output).expanduser() if args.output else directory
    output.mkdir(parents=True, exist_ok=True)
    about = {
        "benchmark": benchmark.name,
        "base": base.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": report.describe_machine(),
        "options": options,
        "repeats": args.repeats,
        "subjects": {subject.label: subject.as_json(measured[0]) for subject in measured},
    }
    raw = directory / f"{_stem(benchmark, options, each=args.each, variants=args.variant)}.json"
    ui.info(f"logs and raw data: {display(directory)}")
    runs = runner.run(
        benchmark,
        measured,
        options,
        args.repeats,
        directory,
        url=args.url,
        # After each run: an interruption loses none.
        save=lambda runs: report.write_json(raw, about | {"runs": runs}),
    )
    labels = [subject.label for subject in measured]
    rows = table(labels, runs, benchmark.figures)
    if not rows:
        raise PatchsetError("no run of the benchmark succeeded", f"see {display(directory)}")
    # Only now: what is there already is replaced by a complete result alone.
    files = report.write(benchmark, raw, output)
    report.write_index(output, BENCHMARKS)
    print(report.render(labels, rows, terminal=sys.stdout.isatty()), end="\n\n")
    for line in report.conclusions(labels, rows, benchmark.panels):
        print(line)
    print()
    for path in files:
        print(display(path))
    return 1 if any(map(runner.failed, runs)) else 0


def _stem(benchmark: Benchmark, options: dict, **more: object) -> str:
    """Return the name of the result's files: what was measured otherwise than by default is in it."""
    defaults = {option.name: option.default for option in (*benchmark.options, _BUSY)}
    words = [benchmark.name, *(name for name, value in more.items() if value)]
    for name, value in options.items():
        if value != defaults.get(name, "sqlite"):
            values = value if isinstance(value, list) else [value]
            words += [name, *(str(each).removesuffix(".0") for each in values)]
    return "-".join(words)
