# SPDX-License-Identifier: Apache-2.0
"""
The only place that builds git command lines.

Every call runs apart from the user's settings: what they put in their configuration, attributes or
``GIT_*`` variables changes neither what is applied nor a byte of what is exported. The isolation is per call;
nothing is written to any configuration, so a clone of the user's keeps its identity and remotes.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from pathlib import Path

from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.paths import display

NAME = "Airflow LocalExecutor patch set"
EMAIL = "patchset@invalid"
_MINIMUM = (2, 32)  # the first that reads GIT_CONFIG_GLOBAL

_ATTRIBUTES = Path(__file__).resolve().parents[2] / "export.gitattributes"

# Reaching a remote is the one thing that is the user's business: a partial clone fetches the blobs it lacks,
# and only they know their proxy, certificates and keys.
_KEPT_VARIABLES = re.compile(r"GIT_(SSL_|SSH|ASKPASS|PROXY_|HTTP_)")
# What the user ignores everywhere (editor files) is no reason to call a tree dirty.
_KEPT_SETTINGS = (
    r"^(safe\.directory|http\.|url\.|credential\.|ssh\.|core\.sshcommand|core\.excludesfile|protocol\.)"
)

# What else the configuration of a clone could change, which GIT_CONFIG_GLOBAL does not null.
_SETTINGS = {
    "apply.ignoreWhitespace": "no",
    "commit.gpgSign": "false",
    "core.abbrev": "12",
    "core.attributesFile": str(_ATTRIBUTES),
    "core.autocrlf": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "i18n.commitEncoding": "UTF-8",
    "mailinfo.scissors": "false",
    "maintenance.auto": "false",
    "status.showUntrackedFiles": "normal",
    "tag.gpgSign": "false",
}


class GitError(PatchsetError):
    """A git command failed; ``reason`` is the line of its message that says why."""

    def __init__(self, command: str, reason: str):
        super().__init__(f"{command}: {reason}")
        self.reason = reason


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or _KEPT_VARIABLES.match(k)}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PAGER": "cat",
        "GIT_EDITOR": "true",
        "GIT_AUTHOR_NAME": NAME,
        "GIT_AUTHOR_EMAIL": EMAIL,
        "GIT_COMMITTER_NAME": NAME,
        "GIT_COMMITTER_EMAIL": EMAIL,
        "LC_ALL": "C",
        "LANGUAGE": "C",
        "TZ": "UTC",
    }


def _spawn(command: list[str], **kwargs) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, capture_output=True, **kwargs)
    except FileNotFoundError as e:
        if e.filename != command[0]:
            raise
        raise PatchsetError("git not found", "install it, e.g. apt install git") from None


@functools.cache
def _from_user() -> tuple[tuple[str, str], ...]:
    """Return the user's settings that say which remotes and directories to trust and how to reach them."""
    version = _spawn(["git", "--version"]).stdout.decode()
    numbers = re.search(r"(\d+)\.(\d+)", version)
    if not numbers or (int(numbers[1]), int(numbers[2])) < _MINIMUM:
        raise PatchsetError(
            f"git {'.'.join(map(str, _MINIMUM))} or newer is needed, this is {version.strip() or 'unknown'}",
            "install a newer git",
        )
    found: list[tuple[str, str]] = []
    for scope in ("--system", "--global"):
        listed = _spawn(["git", "config", scope, "--includes", "-z", "--get-regexp", _KEPT_SETTINGS], cwd="/")
        for entry in listed.stdout.decode(errors="surrogateescape").split("\0")[:-1]:
            key, _, value = entry.partition("\n")
            found.append((key, value))
    return tuple(found)


def call(
    *args: str | os.PathLike,
    cwd: str | os.PathLike,
    input: str | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """
    Run git apart from the user's settings and return what it left, its output byte for byte.

    :param args: the command line after ``git``
    :param cwd: root of the repository to work on; a repository above it is never used
    :param input: text for stdin; nothing if None
    :param env: variables to add, e.g. dates
    :raises PatchsetError: if there is no git, or one too old
    """
    directory = Path(cwd).resolve()
    settings = [*_from_user(), *_SETTINGS.items()]
    variables = _environment() | {
        "GIT_CEILING_DIRECTORIES": str(directory.parent),
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    # Not the text mode of subprocess: it would turn CR LF into LF.
    done = _spawn(
        ["git", *map(os.fspath, args)],
        cwd=directory,
        input=(input or "").encode(errors="surrogateescape"),
        env=variables | (env or {}),
    )
    out, err = done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace")
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def git(
    *args: str | os.PathLike,
    cwd: str | os.PathLike,
    input: str | None = None,
    env: dict[str, str] | None = None,
    check: bool = True,
) -> str:
    """
    Run git as :func:`call` does and return what it wrote to stdout.

    :param check: raise if git fails; otherwise a failure returns what was written so far
    :raises GitError: if git fails, with the line of its message that matters
    """
    done = call(*args, cwd=cwd, input=input, env=env)
    if done.returncode and check:
        raise GitError(f"git {args[0]} in {display(Path(cwd))}", essential(done.stderr))
    return done.stdout


def essential(stderr: str) -> str:
    """Return the line of git's messages that says what is wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("hint:")]
    for prefix in ("error: patch failed: ", "error: ", "fatal: "):
        for line in lines:
            if line.startswith(prefix):
                return line.removeprefix(prefix)
    return lines[-1] if lines else "failed without a message"


def resolve(revision: str, cwd: str | os.PathLike) -> str | None:
    """Return the id of the commit that ``revision`` names, or None."""
    command = ("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    return git(*command, cwd=cwd, check=False).strip() or None


def identity(cwd: str | os.PathLike) -> dict[str, str]:
    """
    Return the variables that make git commit as the user, by their own settings in the repository ``cwd``.

    :raises PatchsetError: if they have set no name or no address
    """
    own = ("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(own)}
    # Otherwise git makes up an address from the name of the machine.
    command = ["git", "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT"]
    said = _spawn(command, cwd=Path(cwd).resolve(), env=kept).stdout.decode(errors="surrogateescape")
    match = re.match(r"(.+) <(.+)> \d", said)
    if not match:
        raise PatchsetError(
            "git does not know who you are",
            "tell it: git config --global user.name NAME, git config --global user.email ADDRESS",
        )
    who = {"NAME": match[1], "EMAIL": match[2]}
    return {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
