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
from pypi_simple import PYPI_SIMPLE_ENDPOINT, DistributionPackage, NoSuchProjectError, PyPISimple
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
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
        found: list[str] = []
        for url in _indexes():
            with _client(url) as index:
                try:
                    packages = index.get_project_page(artifact.project, timeout=_TIMEOUT).packages
                    found += [_hash(each) for each in packages if _is_like(each, artifact)]
                    for package in packages:
                        if _hash(package) == artifact.sha256:
                            return _download(index, package, directory)
                except NoSuchProjectError:
                    continue
                except requests.RequestException as e:
                    raise PatchsetError(
                        f"cannot download {artifact.project} from {urlsplit(index.endpoint).hostname}: {e}",
                        "check the network; UV_DEFAULT_INDEX can name another index, SSL_CERT_FILE its "
                        "certificates",
                    ) from e
    if found:
        raise PatchsetError(
            f"hash mismatch for the {artifact.kind} of {artifact.project} {artifact.version}: "
            f"expected {artifact.sha256}, the index has {', '.join(found)}",
            "check which index is used (UV_DEFAULT_INDEX); it must carry the files as they were released",
        )
    raise PatchsetError(
        f"the package index has no {artifact.kind} of {artifact.project} {artifact.version}",
        "check which index is used (UV_DEFAULT_INDEX)",
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _hash(package: DistributionPackage) -> str:
    return package.digests.get("sha256", "no SHA-256")


def _is_like(package: DistributionPackage, artifact: Artifact) -> bool:
    return (package.version, package.package_type) == (artifact.version, artifact.kind)


def _download(index: PyPISimple, package: DistributionPackage, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".") as scratch:
        temporary = Path(scratch, package.filename)
        try:
            # Compressed once more on the way, a .tar.gz would be unpacked and have another hash.
            index.download_package(
                package, temporary, timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}
            )
        except ValueError as e:  # the digest
            raise PatchsetError(f"{package.filename}: {e}", "the index is damaged; use another one") from e
        os.replace(temporary, directory / package.filename)
    return directory / package.filename


class _IndexAuth(HTTPBasicAuth):
    """Credentials for one host; files often lie on another one."""

    def __init__(self, host: str, username: str, password: str):
        super().__init__(username, password)
        self.host = host

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return super().__call__(request) if urlsplit(request.url or "").hostname == self.host else request


def _client(url: str) -> PyPISimple:
    """Return a client for an index; what its URL says of user and password is not in any message."""
    parts = urlsplit(url)
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=_RETRY))
    session.mount("http://", HTTPAdapter(max_retries=_RETRY))
    session.verify = uvtool.certificates() or True
    if parts.username:
        session.auth = _IndexAuth(
            parts.hostname or "", unquote(parts.username), unquote(parts.password or "")
        )
    return PyPISimple(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), session=session)


def _indexes() -> list[str]:
    """Return the URLs of the indexes that may have a file, the default one last."""
    variables, settings = uvtool.environment(), _uv_settings()
    default = variables.get("UV_DEFAULT_INDEX") or variables.get("UV_INDEX_URL") or settings.get("index-url")
    urls = f"{variables.get('UV_INDEX', '')} {variables.get('UV_EXTRA_INDEX_URL', '')}".split()
    urls += settings.get("extra-index-url", [])
    for table in settings.get("index", []):
        if table.get("default"):
            default = default or table["url"]
        else:
            urls.append(table["url"])
    # uv lets an index have a name: NAME=URL.
    urls = [re.sub(r"^[\w.-]+=", "", url) for url in [*urls, default or PYPI_SIMPLE_ENDPOINT]]
    return [url for url in urls if url.startswith(("https://", "http://"))]


def _uv_settings() -> dict:
    """Return what uv's own configuration files say."""
    for path in uvtool.settings_files():
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as e:
            raise PatchsetError(f"{path}: {e}", "correct it") from e
    return {}
