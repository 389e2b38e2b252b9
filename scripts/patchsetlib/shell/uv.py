# SPDX-License-Identifier: Apache-2.0
"""Runs uv, with the user's settings of index, proxy and certificates; what uv says goes to the user."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

from patchsetlib.shell import ui
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT

INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


def executable() -> Path:
    """Return the path of uv in the environment that runs the tool."""
    return Path(sys.executable).with_name("uv")


def environment() -> dict[str, str]:
    """Return the variables that uv runs with."""
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    if bundle := certificates():
        variables["SSL_CERT_FILE"] = bundle
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in settings_files()]
    has_index = any(map(os.environ.get, INDEX_VARIABLES)) or any("index" in text for text in texts)
    if not has_index and (index := _pip_settings().get("index-url")):
        variables["UV_DEFAULT_INDEX"] = index
    # A Python is something to install knowingly, not to have downloaded as a side effect.
    return variables | {"UV_PYTHON_DOWNLOADS": "never"}


def certificates() -> str | None:
    """Return the file of certificates to trust, if one was set for this tool or for pip."""
    return os.environ.get("SSL_CERT_FILE") or _pip_settings().get("cert")


def settings_files() -> list[Path]:
    """Return uv's own configuration files that are there, the user's before the machine's."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    chosen = os.environ.get("UV_CONFIG_FILE")
    files = [Path(chosen)] if chosen else [user / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]
    return [path for path in files if path.is_file()]


@functools.cache
def _pip_settings() -> dict[str, str]:
    """Return what pip's variables and configuration files say, the variables over the files."""
    command = [sys.executable, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    return {name: value for _, name, value in sorted(found, key=lambda setting: setting[0] == ":env:")}


def uv(*args: str | os.PathLike, cwd: Path = ROOT) -> None:
    """
    Run uv. On a terminal it shows how far it is; elsewhere it says only what is wrong.

    :param cwd: by default the repository, since uv takes settings from a pyproject.toml there or above
    :raises PatchsetError: if it fails
    """
    options = [] if ui.shows_progress() else ["--quiet"]
    command = [executable(), *options, *args]
    # stdout is for results of the tool.
    done = subprocess.run(command, env=environment(), cwd=cwd, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode:
        what = " ".join(map(str, args[:2] if args[0] in ("pip", "python", "tool") else args[:1]))
        raise PatchsetError(f"uv {what} failed; see above")
