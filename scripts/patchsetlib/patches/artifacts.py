# SPDX-License-Identifier: Apache-2.0
"""
Files of the package index that the user's uv or pip is set to.

The hash in ``base.toml`` says which file of a project it is; a file with another one is never used.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from patchsetlib.patches.base import Artifact
from patchsetlib.shell import ui
from patchsetlib.shell import uv as uvtool
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import work_dir

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TIMEOUT = 30  # seconds without a byte
_RETRY = Retry(total=4, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)


def fetch(artifact: Artifact) -> Path:
    """
    Return the path of ``artifact``, downloaded if it is not there yet.

    :raises PatchsetError: if it cannot be had, or is not the file that ``base.toml`` means
    """
    directory = work_dir() / "downloads" / artifact.sha256
    for path in sorted(directory.glob("[!.]*")):
        if sha256(path) == artifact.sha256:
            return path
    if os.environ.get("UV_OFFLINE"):
        raise PatchsetError("cannot reach the package index: the network is disabled", "unset UV_OFFLINE")
    with ui.step(f"downloading {artifact.project} {artifact.version} ({artifact.kind})"):
        url = _url(artifact)
        path = directory / urlsplit(url).path.rpartition("/")[2]
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".") as scratch:
            temporary = Path(scratch, path.name)
            try:
                _download(url, temporary)
            except requests.RequestException as e:
                raise PatchsetError(
                    f"cannot download {url}: {e}", "check the network; SSL_CERT_FILE can name certificates"
                ) from e
            if (found := sha256(temporary)) != artifact.sha256:
                raise PatchsetError(f"{url} has the SHA-256 {found}", "the index is damaged; use another one")
            os.replace(temporary, path)
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _url(artifact: Artifact) -> str:
    """Return the address of the file as uv finds it: uv knows which index to ask, and how."""
    requirement = f"{artifact.project}=={artifact.version}"
    with tempfile.TemporaryDirectory(prefix="patchset-") as scratch:
        source, lock = Path(scratch, "requirements.in"), Path(scratch, "pylock.toml")
        source.write_text(requirement, encoding="utf-8")
        # A Python that suits every project: what runs the tool need not be able to run this one.
        options = ("--no-deps", "--universal", "--python-version=3.99", "--format=pylock.toml")
        uvtool.uv("pip", "compile", *options, "--output-file", lock, source)
        (package,) = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    files = package.get("wheels", []) if artifact.kind == "wheel" else [package.get("sdist", {})]
    urls = {file.get("hashes", {}).get("sha256", "none"): file.get("url") for file in files}
    if not urls.get(artifact.sha256):
        raise PatchsetError(
            f"the index has no {artifact.kind} of {requirement} with the SHA-256 {artifact.sha256}, "
            f"only {', '.join(urls) or 'none'}",
            "check which index is used (UV_DEFAULT_INDEX); it must carry the files as they were released",
        )
    return urls[artifact.sha256]


def _download(url: str, path: Path) -> None:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
    session.verify = uvtool.certificates() or True
    # Compressed once more on the way, a .tar.gz would be unpacked and have another hash.
    options = {"headers": {"Accept-Encoding": "identity"}, "auth": _credentials(url), "timeout": _TIMEOUT}
    with session, session.get(url, stream=True, **options) as response, path.open("wb") as file:
        response.raise_for_status()
        for block in response.iter_content(1 << 16):
            file.write(block)


def _credentials(url: str) -> tuple[str, str] | None:
    """Return what the user's settings of an index on the host of ``url`` have for user and password."""
    texts = [value for name, value in uvtool.environment().items() if name in uvtool.INDEX_VARIABLES]
    texts += [path.read_text(encoding="utf-8", errors="replace") for path in uvtool.settings_files()]
    for user, password, host in re.findall(r"//([^:/@\s]+):([^/@\s]*)@([^/\s\"']+)", "\n".join(texts)):
        if host == urlsplit(url).netloc:
            return unquote(user), unquote(password)
    return None
