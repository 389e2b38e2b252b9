# SPDX-License-Identifier: Apache-2.0
"""The command line: finds the verb, runs it, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import NoReturn

from patchsetlib import verbs
from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError, UsageError

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see {self.prog} --help")


def verb_names() -> list[str]:
    """Return the names of all verbs, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(verbs.__path__))


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"patchsetlib.verbs.{name}")


def _parse(argv: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """
    Parse the command line, importing only the verb that is asked for.

    :raises UsageError: if it is not valid
    :raises SystemExit: after printing help
    """
    # Suppressed, so that the verb's parser does not reset what the top one has seen.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    parser = _Parser(
        prog="patchset",
        description="Patches for Apache Airflow's LocalExecutor, and tools around them.",
        parents=[common],
    )
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    known = verb_names()
    if asked is not None and asked not in known:
        raise UsageError(f"unknown verb {asked!r}", f"verbs: {', '.join(known)}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for name in [asked] if asked else known:
        module = _load(name)
        description = f"{module.HELP[:1].upper()}{module.HELP[1:]}."
        module.add_arguments(
            subparsers.add_parser(name, help=module.HELP, description=description, parents=[common])
        )
    argv, rest = list(argv), []
    if asked and getattr(module, "PASSES_ON", False) and "--" in argv:
        argv, rest = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    args = parser.parse_args(argv, argparse.Namespace(quiet=False, rest=rest))
    if asked is None:
        parser.print_help()
        raise SystemExit(2)
    return module, args


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # Cleaning up is short and must not be cut off: from here on only SIGKILL ends the tool earlier.
    for each in _STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(128 + number)


def _catch_signals() -> None:
    for number in _STOPPING:
        # A signal that the caller has us ignore stays ignored (nohup, a background job).
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; 130 and 143 when a signal ended it."""
    try:
        _catch_signals()
        try:
            verb, args = _parse(sys.argv[1:] if argv is None else argv)
            ui.set_quiet(args.quiet)
            return verb.run(args)
        finally:
            sys.stdout.flush()
    except PatchsetError as e:
        ui.error(" ".join(str(e).split("\n")))
        return e.exit_code
    except BrokenPipeError:
        # The reader of our output has gone (| head).
        return 128 + signal.SIGPIPE
    except OSError as e:
        ui.error(f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e))
        return 1
    except KeyboardInterrupt as e:
        ui.error("stopped")
        return e.args[0]
    finally:
        _discard_output()


def _discard_output() -> None:
    """Take from Python's buffers what could not be written, so that it does not try again at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
