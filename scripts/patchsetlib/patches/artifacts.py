# SPDX-License-Identifier: Apache-2.0
"""
Get files from the package index the user's uv or pip is set to, by name, version and hash.

uv finds the URL, since it knows about mirrors, credentials and the like; the hash in ``base.toml`` decides
whether what came is the right file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import netrc
import os
import re
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from patchsetlib.patches.base import Artifact
from patchsetlib.shell import ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display, work_dir

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Only for the resolution that yields the URL, which fails for a version the release does not support.
_ANY_SUPPORTED_PYTHON = "3.12"
_ATTEMPTS = 4
_TIMEOUT = 30  # seconds without a byte
_PAUSE = 1.0  # seconds before the second attempt; doubled for each further one


def fetch(artifact: Artifact) -> Path:
    """
    Return the path of ``artifact``, downloaded if it is not there yet.

    :raises PatchsetError: if it cannot be had, or is not the file that ``base.toml`` means
    """
    directory = work_dir() / "downloads" / artifact.sha256
    for path in sorted(directory.glob("*")):
        if not path.name.startswith(".") and sha256(path) == artifact.sha256:
            return path
    with ui.step(f"downloading {artifact.project} {artifact.version} ({artifact.kind})"):
        url, name = _locate(artifact)
        directory.mkdir(parents=True, exist_ok=True)
        target = directory / name
        handle, temporary = tempfile.mkstemp(prefix=".", dir=directory)
        try:
            with os.fdopen(handle, "wb") as file:
                found = _download(url, file)
            if found != artifact.sha256:
                raise mismatch(artifact, [found])
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return target


def mismatch(artifact: Artifact, found: list[str]) -> PatchsetError:
    """Return the error for an ``artifact`` that has other hashes than the one expected."""
    return PatchsetError(
        f"hash mismatch for the {artifact.kind} of {artifact.project} {artifact.version}: "
        f"expected {artifact.sha256}, the index has {', '.join(found) or 'none'}",
        "check which index is used (UV_DEFAULT_INDEX); it must carry the files as they were released",
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _locate(artifact: Artifact) -> tuple[str, str]:
    """Return URL and file name of ``artifact`` on the index."""
    with tempfile.TemporaryDirectory() as directory:
        requirement = Path(directory, "requirement.in")
        requirement.write_text(f"{artifact.project}=={artifact.version}\n", encoding="utf-8")
        lock = Path(directory, "pylock.toml")
        try:
            uvtool.uv(
                *(
                    "pip",
                    "compile",
                    "--no-deps",
                    "--no-header",
                    "--format",
                    "pylock.toml",
                    "--output-file",
                    lock,
                ),
                *("--python", sys.executable, "--python-version", _ANY_SUPPORTED_PYTHON, requirement),
            )
        except PatchsetError as e:
            if "no version of" in e.problem or "not found in the package registry" in e.problem:
                raise PatchsetError(
                    f"the package index has no {artifact.project} {artifact.version}",
                    "check which index is used (UV_DEFAULT_INDEX)",
                ) from e
            raise
        return choose(artifact, lock.read_text(encoding="utf-8"), lock.parent)


def choose(artifact: Artifact, lock: str, directory: Path) -> tuple[str, str]:
    """
    Return URL and file name of ``artifact`` in a lock file (PEP 751) that lists the files of its release.

    :param directory: where the lock file lies; a file of a local index is given relative to it
    :raises PatchsetError: if no file of that kind has the right hash
    """
    package = tomllib.loads(lock)["packages"][0]
    files = [package["sdist"]] if artifact.kind == "sdist" and "sdist" in package else []
    if artifact.kind == "wheel":
        files = package.get("wheels", [])
    hashes = [file["hashes"].get("sha256", "without SHA-256") for file in files]
    if artifact.sha256 not in hashes:
        raise mismatch(artifact, hashes)
    file = files[hashes.index(artifact.sha256)]
    url = file["url"] if "url" in file else (directory / file["path"]).resolve().as_uri()
    return url, file.get("name") or unquote(urlsplit(url).path.rpartition("/")[2])


def _download(url: str, file) -> str:
    """Write what ``url`` has to ``file`` and return its SHA-256; transient failures are tried again."""
    context = ssl.create_default_context(cafile=uvtool.certificates())
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            file.seek(0)
            file.truncate()
            digest = hashlib.sha256()
            with urllib.request.urlopen(_request(url), timeout=_TIMEOUT, context=context) as response:
                expected = response.headers.get("Content-Length")
                while block := response.read(1 << 16):
                    digest.update(block)
                    file.write(block)
            if expected is not None and file.tell() != int(expected):
                raise http.client.IncompleteRead(b"", int(expected) - file.tell())
            return digest.hexdigest()
        except (OSError, http.client.HTTPException) as e:
            status = getattr(e, "code", None)
            lasting = status is not None and status < 500 and status not in (408, 429)
            local = (
                isinstance(e, OSError) and e.filename is not None and not isinstance(e, urllib.error.URLError)
            )
            if lasting or local or attempt == _ATTEMPTS:
                host = urlsplit(url).hostname or display(Path(urlsplit(url).path))
                reason = getattr(e, "reason", None) or e
                raise PatchsetError(
                    f"cannot download from {host}: {reason}", "check the network and try again"
                ) from e
            ui.info(f"download interrupted ({getattr(e, 'reason', e)}), trying again")
            time.sleep(_PAUSE * 2 ** (attempt - 1))
    raise AssertionError("not reached")


def _request(url: str) -> urllib.request.Request:
    """Return the request for ``url``, with the credentials that uv would use for its host."""
    request = urllib.request.Request(
        url, headers={"User-Agent": "airflow-patchset", "Accept-Encoding": "identity"}
    )
    host = urlsplit(url).hostname
    variables = uvtool.environment()
    indexes = " ".join(variables.get(name, "") for name in uvtool.INDEX_VARIABLES)
    for index in re.findall(r"(?:^|\s|=)(https?://\S+)", indexes):
        parts = urlsplit(index)
        if parts.hostname == host and parts.username:
            _authorize(request, unquote(parts.username), unquote(parts.password or ""))
            return request
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if entry := netrc.netrc(os.environ.get("NETRC")).authenticators(host or ""):
            _authorize(request, entry[0], entry[2] or "")
    return request


def _authorize(request: urllib.request.Request, user: str, password: str) -> None:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    # Unredirected: a redirect to another host must not carry it along.
    request.add_unredirected_header("Authorization", f"Basic {token}")
