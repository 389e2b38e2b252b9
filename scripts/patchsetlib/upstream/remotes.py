# SPDX-License-Identifier: Apache-2.0
"""The remotes of a repository, and which forge they are on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from patchsetlib.shell.git import git

_URL = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^@/]*@)?(?P<host>[\w.-]+)(?::\d+)?/|(?:[^@/:]+@)(?P<scp>[\w.-]+):)"
    r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


class Project(NamedTuple):
    """A repository on a forge."""

    host: str
    owner: str
    name: str

    @property
    def web(self) -> str:
        """Its address for people, without what a URL of git may hold of passwords."""
        return f"https://{self.host}/{self.owner}/{self.name}"


def project(url: str) -> Project | None:
    """Return what a URL of git names on a forge; None if it is something else, such as a path."""
    match = _URL.fullmatch(url)
    return match and Project(match["host"] or match["scp"], match["owner"], match["name"])


def remotes(repository: Path) -> dict[str, str]:
    """Return the URLs of the remotes of a repository by name."""
    found = git("config", "--null", "--get-regexp", r"^remote\..*\.url$", cwd=repository, check=False)
    entries = (entry.split("\n", 1) for entry in found.split("\0")[:-1])
    return {key.removeprefix("remote.").removesuffix(".url"): url for key, url in entries}
