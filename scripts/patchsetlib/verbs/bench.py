# SPDX-License-Identifier: Apache-2.0
"""``bench``: measurements of stock and patched, and of any other Airflow, in one run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from patchsetlib.measure import bench, report
from patchsetlib.measure.benchmarks import report as benchreport
from patchsetlib.measure.benchmarks.subjects import subjects
from patchsetlib.patches import base as bases
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError, UsageError
from patchsetlib.shell.paths import display, new_directory, work_dir

HELP = "measure memory, growth, dispatch, throughput or gc, stock against patched"
DEFAULT_BASE = "3.1.3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(metavar="NAME", dest="benchmark", required=True)
    for name in bench.NAMES:
        module = bench.load(name)
        each = names.add_parser(name, help=module.HELP, description=module.HELP[:1].upper() + module.HELP[1:])
        each.add_argument(
            "base", nargs="?", default=DEFAULT_BASE, metavar="BASE", help=f"default: {DEFAULT_BASE}"
        )
        module.add_arguments(each)
        _add_common(each)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repeats", type=int, default=2, metavar="N", help="runs of each, interleaved (default: 2)"
    )
    parser.add_argument(
        "--each", action="store_true", help="measure the series after each of its patches as well"
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="[LABEL=]PYTHON",
        help="another installed Airflow, by its Python; repeatable",
    )
    parser.add_argument("--python", metavar="X.Y", help="Python version (default: the base's)")
    parser.add_argument(
        "--output", metavar="DIR", help="where to put the results; those of the same name there are replaced"
    )
    parser.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    if sys.platform != "linux":
        raise PatchsetError("bench needs Linux", "run it there, or in a Linux container")
    if args.repeats < 1:
        raise UsageError("--repeats must be at least 1")
    module = bench.load(args.benchmark)
    options = module.options(args)
    base = bases.load(args.base)
    output = None
    if args.output is not None:
        output = Path(args.output).expanduser()
        # Now, since it would be a pity to notice after half an hour.
        output.mkdir(parents=True, exist_ok=True)
    variants = getattr(args, "variant", [])
    measured = subjects(
        base, python_version=args.python, each=args.each, variants=variants, against=args.against
    )
    started = time.monotonic()
    machine = report.describe_machine()
    directory = new_directory(work_dir() / base.name / "bench")
    files = benchreport.Files(output or directory, _stem(args, module))

    def result(runs: list[dict]) -> dict:
        return bench.result(args.benchmark, base.name, measured, options, args.repeats, machine, runs)

    # What there is after each run; only the end of the benchmark replaces what is in the output directory.
    partial = directory / f"{files.stem}-partial.json"
    try:
        runs = bench.run(
            module,
            measured,
            options,
            args.repeats,
            directory,
            save=lambda runs: report.write_json(partial, result(runs)),
        )
    except BaseException:
        if partial.exists():
            ui.info(f"the runs so far are in {display(partial)}")
        raise
    labels = [subject.label for subject in measured]
    table = bench.rows(module, labels, runs)
    if not table:
        raise PatchsetError("no run of the benchmark succeeded", f"see {display(directory)}")
    partial.unlink()
    benchreport.write(module, result(runs), files)
    print(report.render(labels, table, terminal=sys.stdout.isatty()), end="\n\n")
    ui.info(f"{args.benchmark}: {time.monotonic() - started:.0f} s in all")
    for path in (files.data, *files.charts):
        print(display(path))
    return 1 if bench.failures(runs) else 0


def _stem(args: argparse.Namespace, module) -> str:
    """Return the name of the result's files: variants of a benchmark do not replace one another."""
    parts = [args.benchmark]
    if args.each:
        parts.append("each")
    return "-".join([*parts, *getattr(module, "variant", lambda args: [])(args)])
