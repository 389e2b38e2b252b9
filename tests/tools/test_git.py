# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest
from sampleset import user_git

from patchsetlib.shell import git as gitlib
from patchsetlib.shell.errors import PatchsetError
from patchsetlib.shell.git import GitError, call, git
from patchsetlib.shell.paths import display


@pytest.fixture(autouse=True)
def _fresh_settings(monkeypatch, tmp_path):
    """What is read once from the user's configuration is read again in every test."""
    for name in list(os.environ):
        if name.startswith(("GIT_", "XDG_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    gitlib._from_user.cache_clear()
    yield
    gitlib._from_user.cache_clear()


@pytest.fixture
def tree(tmp_path):
    path = tmp_path / "a tree"
    path.mkdir()
    user_git("init", "--quiet", cwd=path)
    return path


def test_output_is_byte_for_byte(tree):
    text = "one\r\ntwo\ncaf\udce9\n"
    identity = git("hash-object", "-w", "--stdin", cwd=tree, input=text).strip()
    assert git("cat-file", "blob", identity, cwd=tree) == text


def test_essential_line_of_an_error(tree):
    with pytest.raises(GitError) as error:
        git("rev-parse", "--verify", "nothing", cwd=tree)
    assert error.value.problem == f"git rev-parse in {display(tree)}: Needed a single revision"
    assert git("rev-parse", "--verify", "nothing", cwd=tree, check=False) == ""


def test_repository_above_is_never_used(tree, tmp_path):
    inner, link = tree / "inner", tmp_path / "link"
    inner.mkdir()
    link.symlink_to(inner)
    assert call("rev-parse", "--git-dir", cwd=tree).returncode == 0
    for directory in (inner, link):
        with pytest.raises(GitError, match="not a git repository"):
            git("rev-parse", "--git-dir", cwd=directory)


def test_settings_of_the_user(tree, tmp_path, monkeypatch):
    ignore = tmp_path / "ignore"
    ignore.write_text("*.swp\n")
    (tmp_path / "home" / ".gitconfig").write_text(
        f"[core]\nautocrlf = true\nexcludesFile = {ignore}\n[user]\nname = Jane\nemail = j@invalid\n"
        '[http]\nproxy = http://proxy.invalid\n[url "https://a=b.invalid/"]\ninsteadOf = https://c.invalid/\n'
        "[format]\nsuffix = .txt\n"
    )
    assert git("config", "core.autocrlf", cwd=tree) == "false\n"
    assert git("config", "format.suffix", cwd=tree, check=False) == ""
    # How to reach a remote is the user's business, and so is what they always ignore.
    assert git("config", "http.proxy", cwd=tree) == "http://proxy.invalid\n"
    assert git("config", "url.https://a=b.invalid/.insteadOf", cwd=tree) == "https://c.invalid/\n"
    (tree / "a.swp").write_text("")
    assert git("status", "--porcelain", cwd=tree) == ""


def test_settings_of_the_repository_do_not_win(tree):
    for key, value in {"core.autocrlf": "true", "commit.gpgSign": "true"}.items():
        user_git("config", key, value, cwd=tree)
    before = (tree / ".git" / "config").read_bytes()
    assert git("config", "core.autocrlf", cwd=tree) == "false\n"
    (tree / "a").write_bytes(b"a\r\n")
    git("add", "a", cwd=tree)
    git("commit", "--quiet", "--message", "A", cwd=tree)
    assert git("cat-file", "blob", "HEAD:a", cwd=tree) == "a\r\n"
    assert git("log", "--format=%an %ae %cn", cwd=tree) == f"{gitlib.NAME} {gitlib.EMAIL} {gitlib.NAME}\n"
    assert (tree / ".git" / "config").read_bytes() == before


def test_variables_of_the_user(tree, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_CEILING_DIRECTORIES"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.bare")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert git("rev-parse", "--is-bare-repository", cwd=tree) == "false\n"
    assert git("rev-parse", "--git-dir", cwd=tree) == ".git\n"


def test_language(tree, monkeypatch):
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    with pytest.raises(GitError, match="pathspec 'nothing' did not match"):
        git("add", "nothing", cwd=tree)


def test_no_git(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PatchsetError, match="git not found; install it"):
        git("status", cwd=tree)


def test_old_git(tree, tmp_path, monkeypatch):
    script = tmp_path / "git"
    script.write_text("#!/bin/sh\necho git version 2.25.1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(PatchsetError, match=r"git 2\.32 or newer is needed, this is git version 2\.25\.1"):
        git("status", cwd=tree)
