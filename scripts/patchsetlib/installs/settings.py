# SPDX-License-Identifier: Apache-2.0
"""
The options of LocalExecutor as an installation reads them: environment, then ``airflow.cfg``, then default.

Only options without secrets are read. Where a command or a secrets backend is to give a value, that is named,
and neither run nor asked.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

DEFAULTS = {
    "core.executor": "LocalExecutor",
    "core.parallelism": "32",
    "core.mp_start_method": None,
    "scheduler.mp_start_method": None,
    "scheduler.enable_health_check": "False",
    "local_executor.idle_workers": None,
    "local_executor.renew_idle_workers_after": "30.0",
}
"""The same in all releases of Airflow 3 that have the option."""

PATCHED_ONLY = "local_executor."
"""How the options begin that only a patched Airflow has."""


class Option(NamedTuple):
    """One option and where its value comes from."""

    value: str | None
    source: str
    """``environment``, ``airflow.cfg`` or ``default``."""


@dataclass(frozen=True)
class Settings:
    """The options of ``DEFAULTS`` by name."""

    options: Mapping[str, Option]
    file: Path
    """The ``airflow.cfg`` that is read, as this process reaches it."""
    notes: list[str]
    problems: list[str]

    def value(self, name: str) -> str | None:
        return self.options[name].value or None

    @property
    def executors(self) -> list[str]:
        """The entries of ``[core] executor``."""
        return [word.strip() for word in (self.value("core.executor") or "").split(",") if word.strip()]

    @property
    def uses_local_executor(self) -> bool:
        return any("LocalExecutor" in word for word in self.executors)

    def number(self, name: str) -> int | None:
        """Return an option as a number; None if it is not set, or is none."""
        try:
            return int(self.value(name) or "")
        except ValueError:
            return None


def read(environment: Mapping[str, str], root: Path = Path("/"), home: str | None = None) -> Settings:
    """
    Return what an Airflow with this environment reads.

    :param root: what is ``/`` for that Airflow
    :param home: home directory of its user, if ``environment`` has none
    """
    notes, problems = [], []
    file = _below(root, _config_file(environment, home or "/"))
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        # Airflow makes a file with its defaults where there is none.
        if file.exists():
            parser.read_string(file.read_text(encoding="utf-8"))
    except OSError as e:
        notes.append(f"{file} cannot be read ({e.strerror}): what is set there is not known")
    except (configparser.Error, UnicodeDecodeError) as e:
        problems.append(f"{file} is not valid: {str(e).splitlines()[0]}")
    options = {}
    for name, default in DEFAULTS.items():
        section, key = name.split(".")
        variable = f"AIRFLOW__{section.upper()}__{key.upper()}"
        value, source = default, "default"
        if variable in environment:
            value, source = environment[variable], "environment"
        elif parser.has_option(section, key):
            value, source = parser.get(section, key), "airflow.cfg"
        options[name] = Option(value and _expand(value, environment), source)
        ways = [way for way in (f"{variable}_CMD", f"{variable}_SECRET") if way in environment]
        suffixes = [suffix for suffix in ("_cmd", "_secret") if parser.has_option(section, key + suffix)]
        ways += [f"[{section}] {key}{suffix}" for suffix in suffixes]
        notes += [f"{way} is set, which Airflow does not read: the option is no secret" for way in ways]
    found = Settings(options, file, notes, problems)
    if found.number("core.parallelism") is None:
        problems.append(f"[core] parallelism is {options['core.parallelism'].value!r}, not a number")
    return found


def start_method(settings: Settings, version: str, patched: bool, python_version: str | None) -> str | None:
    """Return how the LocalExecutor of this release starts its workers; None if that cannot be told."""
    release, python = numbers(version), numbers(python_version or "")
    if not release or not python:
        return None
    asked = None
    # Before 3.3, stock does not read it.
    if patched or release >= (3, 3):
        asked = settings.value("core.mp_start_method")
    if release >= (3, 3):
        asked = settings.value("scheduler.mp_start_method") or asked
    return asked or ("fork" if python < (3, 14) else "forkserver")


def numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version, to compare."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _config_file(environment: Mapping[str, str], home: str) -> str:
    def path(text: str) -> str:
        text = _expand(text, environment)
        user = environment.get("HOME") or home
        return user + text[1:] if text == "~" or text.startswith("~/") else text

    directory = path(environment.get("AIRFLOW_HOME", "~/airflow"))
    return path(environment.get("AIRFLOW_CONFIG", f"{directory}/airflow.cfg"))


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/") if path.startswith("/") else Path(path)


def _expand(text: str, environment: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` where they are set."""
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))", lambda match: environment.get(match[1] or match[2], match[0]), text
    )
