# SPDX-License-Identifier: Apache-2.0
"""The only place that runs uv: without user settings that would change a result, and with clear errors."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from patchsetlib.shell import processes
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import ROOT, display

# Which index, how to reach it, and where uv keeps its own things are the user's business. Everything else
# (constraints, overrides, find-links, a newest upload date ...) would change or break what is pinned here.
_KEPT = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX|INDEX_\w+|EXTRA_INDEX_URL|KEYRING_PROVIDER|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST"
    r"|HTTP_\w+|REQUEST_TIMEOUT|OFFLINE|CONFIG_FILE|NO_CONFIG|CACHE_DIR|NO_CACHE|LINK_MODE|CONCURRENT_\w+"
    r"|PYTHON_INSTALL_DIR|PYTHON_SEARCH_PATH|STACK_SIZE|CREDENTIALS_DIR|LOCK_TIMEOUT)"
)
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")

_OFFLINE = re.compile(r"network (was|is|connectivity is) disabled", re.IGNORECASE)
_UNREACHABLE = re.compile(r"failed to (fetch|download)|request failed|error sending request", re.IGNORECASE)


def executable() -> Path:
    """
    Return the path of uv in the environment that runs the tool.

    :raises PatchsetError: if it is not there
    """
    path = Path(sys.executable).parent / "uv"
    if not path.exists():
        raise PatchsetError(f"no uv beside {sys.executable}", "start the tool with scripts/patchset")
    return path


def environment() -> dict[str, str]:
    """Return the variables uv runs with."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("UV_") or _KEPT.fullmatch(k)}
    kept.pop("VIRTUAL_ENV", None)
    # An interpreter is something to install knowingly, not to have downloaded as a side effect.
    if bundle := certificates():
        kept["SSL_CERT_FILE"] = bundle
    return _index_of_pip() | kept | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}


def certificates() -> str | None:
    """Return the file of certificates to trust, if one was set for this tool or for pip."""
    names = ("SSL_CERT_FILE", "PIP_CERT")
    return next(filter(None, map(os.environ.get, names)), None) or _pip_configuration().get("cert")


def _index_of_pip() -> dict[str, str]:
    """Return the index that pip is set to use, as uv variables, unless uv has settings of its own."""
    if any(os.environ.get(name) for name in INDEX_VARIABLES) or _uv_configures_index():
        return {}
    index = os.environ.get("PIP_INDEX_URL") or _pip_configuration().get("index-url")
    return {"UV_DEFAULT_INDEX": index} if index else {}


def _uv_configures_index() -> bool:
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    chosen = os.environ.get("UV_CONFIG_FILE")
    files = [Path(chosen)] if chosen else [user / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]
    return any(path.is_file() and "index" in path.read_text(errors="replace") for path in files)


@functools.cache
def _pip_configuration() -> dict[str, str]:
    """Return pip's settings from its configuration files; empty if there is no pip to ask."""
    done = processes.run([sys.executable, "-m", "pip", "config", "list"], capture=True)
    return dict(re.findall(r"^(?:global|install)\.([\w-]+)='(.*)'$", done.stdout, re.MULTILINE))


def uv(*args: str | os.PathLike, cwd: Path = ROOT, log: Path | None = None, hold: Sequence[int] = ()) -> str:
    """
    Run uv and return what it wrote to stdout.

    :param cwd: by default the repository, since uv takes settings from a pyproject.toml there or above
    :param log: file its messages are appended to
    :param hold: file descriptors of locks, kept open until nothing of it runs any more
    :raises PatchsetError: if it fails, with the line of its messages that matters
    """
    done = processes.run([executable(), *args], env=environment(), cwd=cwd, capture=True, hold=hold)
    if log is not None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"$ uv {' '.join(map(os.fspath, args))}\n{done.stdout}{done.stderr}")
    if done.returncode:
        raise explain(done.stderr, f"uv {args[0]}", log)
    return done.stdout


def explain(stderr: str, what: str, log: Path | None = None) -> PatchsetError:
    """Return the error to raise when ``what`` failed with these messages."""
    see = f"all that uv said: {display(log)}" if log is not None else ""
    # uv writes "error: ..." and below it a chain of "cause: ..."; warnings before it are of no help here.
    messages = [
        line.strip() for line in stderr[max(0, stderr.find("error: ")) :].splitlines() if line.strip()
    ]
    causes = [line.partition("cause: ")[2] for line in messages if line.startswith("cause: ")]
    reason = messages[0].removeprefix("error: ") if messages else "it ended without a message"
    if _OFFLINE.search(stderr):
        return PatchsetError(
            "cannot reach the package index: the network is disabled",
            "unset UV_OFFLINE (or offline in uv.toml)",
        )
    if mismatch := re.search(r"Hash mismatch for `?([^`\n]+)`?", stderr):
        hashes = re.findall(r"sha256:\w+", stderr)
        return PatchsetError(
            f"hash mismatch for {mismatch[1]}: the index has {hashes[-1] if hashes else 'another file'}, "
            "which is not what was pinned",
            "check which index is used (UV_DEFAULT_INDEX); it must carry the files as they were released",
        )
    if _UNREACHABLE.search(reason):
        host = urlsplit(reason.rpartition(" ")[2].strip("`")).hostname
        at = f" at {host}" if host else ""
        return PatchsetError(
            f"cannot reach the package index{at}: {causes[-1] if causes else reason}",
            "check the network; UV_DEFAULT_INDEX can name another index, SSL_CERT_FILE its certificates",
        )
    return PatchsetError(f"{what} failed: {': '.join([reason, *causes[-1:]])}", see)
