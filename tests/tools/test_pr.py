# SPDX-License-Identifier: Apache-2.0
"""``patchset pr``: what is on the branch, what the description says, and that nothing else is touched."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from monorepo import FILES, STEPS, TRAILERS, UNIT, PatchSet, commit, git
from sampleset import edit

BODY = "The seventh step\nis wrong.\n\n  before    after\n       7       77\n\nA table was discarded.\n"
GITCONFIG = "[user]\nname = Ada\nemail = ada@invalid\n[commit]\ngpgSign = true\n[diff]\nnoprefix = true\n"
SEVENTH = FILES[STEPS].replace("return 7\n", "return 77\n")
PATCHES = {
    f"Take the third step\n\nWhy.\n\n{TRAILERS}Bug: https://github.com/apache/airflow/issues/7\n": {
        STEPS: FILES[STEPS].replace("return 3\n", "return 33\n"),
        f"{UNIT}/test_steps.py": "def test_one():\n    pass\n",
        f"{UNIT}/test_third.py": "def test_third():\n    pass\n",
    },
    f"Take the seventh step\n\n{BODY}\n{TRAILERS}Tests: none (why)\n": {
        STEPS: SEVENTH.replace("return 3\n", "return 33\n")
    },
    "Say so\n\nWhy.\n\nForwarded: https://forge.invalid/9\nDepends-on: Take the seventh step\n"
    "Co-authored-by: Another <another@invalid>\n": {"airflow-core/docs/guide.rst": "Guide\n=====\n\nSo.\n"},
    f"Take the ninth step\n\nWhy.\n\n{TRAILERS}Depends-on: Say so\n": {
        STEPS: SEVENTH.replace("return 3\n", "return 33\n").replace("return 9\n", "return 99\n")
    },
}
BRANCH = "take-the-ninth-step"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> PatchSet:
    patch_set = PatchSet.make(tmp_path_factory.mktemp("pr") / "patch sét", PATCHES)
    commit(
        patch_set.upstream,
        "Go on",
        {"airflow-core/docs/guide.rst": "A guide\n=======\n\n\n\n\nGuide\n=====\n"},
    )
    (patch_set.top / "gitconfig").write_text(GITCONFIG)
    return patch_set


@pytest.fixture
def me(pristine, tmp_path) -> PatchSet:
    """The patch set, and a clone with upstream's main, which has moved on, and a fork."""
    shutil.copytree(pristine.top, tmp_path / "top", symlinks=True)
    me = PatchSet(tmp_path / "top")
    edit(me.base / "base.toml", (pristine.upstream.as_uri(), me.upstream.as_uri()))
    fetch(me)
    git(me.clone, "remote", "set-url", "origin", "https://github.com/apache/airflow.git")
    git(me.clone, "remote", "add", "mine", "git@github.com:ada/airflow.git")
    return me


def fetch(me: PatchSet) -> None:
    git(me.clone, "fetch", "--quiet", me.upstream, "+main:refs/remotes/origin/main")


def arguments(me: PatchSet, patch: str, *options: str | Path) -> list[str | Path]:
    return ["--quiet", "pr", "main-1", patch, "--source", me.clone, "--dir", me.top / "new" / "pr", *options]


def pr(me: PatchSet, patch: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    done = me.run(*arguments(me, patch, *options))
    assert done.returncode == 0, done.stderr
    return done


def fails(me: PatchSet, patch: str, *options: str | Path, code: int = 1) -> str:
    """Return the line that says why it fails, once it is sure that nothing is left."""
    before = me.state()
    done = me.run(*arguments(me, patch, *options))
    assert me.state() == before
    assert not (me.top / "new" / "pr").exists()
    assert done.returncode == code, done.stderr
    *warnings, line = done.stderr.splitlines()
    assert all(warning.startswith("warning: ") for warning in warnings)
    return line


def log(me: PatchSet, form: str, branch: str = BRANCH) -> list[str]:
    return git(me.clone, "log", "--reverse", f"--format={form}", f"origin/main..{branch}").splitlines()


def body(me: PatchSet) -> str:
    return (me.top / "new" / "pr" / "body.md").read_text(encoding="utf-8")


def test_branch_has_the_patch_and_what_it_depends_on(me):
    before = me.state()

    pr(me, "4")

    tree = me.top / "new" / "pr" / "airflow"
    assert log(me, "%s") == ["Take the seventh step", "Say so", "Take the ninth step"]
    assert set(log(me, "%an %ae %cn %ce")) == {"Ada ada@invalid Ada ada@invalid"}
    trailers = git(me.clone, "log", "--format=%(trailers:only)", f"origin/main..{BRANCH}").split("\n")
    assert list(filter(None, trailers)) == ["Co-authored-by: Another <another@invalid>"]
    said = git(me.clone, "log", "-1", "--format=%B", f"{BRANCH}~2")
    assert said == f"Take the seventh step\n\n{BODY}".strip()
    assert "return 99\n" in (tree / STEPS).read_text()
    assert "return 33\n" not in (tree / STEPS).read_text()
    assert git(tree, "symbolic-ref", "--short", "HEAD") == BRANCH
    assert git(tree, "status", "--porcelain") == ""
    git(me.clone, "worktree", "remove", tree)
    git(me.clone, "branch", "-D", BRANCH)
    assert me.state() == before


def test_description(me):
    pr(me, "1")
    address = "ADDRESS-OF-THE-PATCH-SET/docs/benchmarks"
    assert body(me) == (
        "related: #7\n\nWhy.\n\n"
        f"### Tests\n\n- New: `{UNIT}/test_third.py`\n- Changed: `{UNIT}/test_steps.py`\n\n"
        f"### Measured effect\n\nNot measured on its own. All measurements: {address}\n\n"
        "---\n\n##### Was Gen-AI used?\n\n<!-- Say which. -->\n\n- [ ] Yes\n"
    )


def test_description_with_notes_and_with_what_is_below(me):
    (me.base / "notes").mkdir()
    (me.base / "notes" / "Take-the-ninth-step.md").write_text("| a | table |\n")
    pr(me, "4")
    assert body(me).startswith("Why.\n\n| a | table |\n\n### Builds on\n\n")
    assert "- Take the seventh step (no pull request yet)\n- Say so (https://forge.invalid/9)\n" in body(me)


def test_message_is_not_reflowed(me):
    pr(me, "2")
    assert body(me).startswith(f"{BODY}\n### Tests\n\n- none (why)\n\n")


def test_measured_effect_has_the_runs_with_and_without_and_a_link(me):
    without = ["0001-Take-the-third-step.patch"]
    subjects = {"stock": [], "one": without, "two": [*without, "0009-Take-the-seventh-step.patch"]}
    raw = me.root / "docs" / "benchmarks" / "1.0" / "memory.json"
    raw.parent.mkdir(parents=True)
    raw.write_text(json.dumps({"subjects": {label: {"patches": names} for label, names in subjects.items()}}))
    (raw.parent / "other.json").write_text("{}")
    git(me.root, "init", "--quiet")
    git(me.root, "remote", "add", "origin", "https://me:secret@example.org/me/patches.git")
    git(me.root, "commit", "--quiet", "--allow-empty", "--message", "All")

    pr(me, "2")

    address = f"https://example.org/me/patches/blob/{git(me.root, 'rev-parse', 'HEAD')}/docs/benchmarks/1.0"
    assert (
        f"- memory: *one* is without this change, *two* with it: [raw data]({address}/memory.json)"
        in body(me)
    )


def test_commands_that_come_next(me):
    git(me.top, "init", "--quiet", "--bare", me.top / "fork")
    with (me.top / "gitconfig").open("a") as file:
        file.write(f'[url "{me.top / "fork"}"]\ninsteadOf = git@github.com:ada/airflow.git\n')
    done = pr(me, "3")
    assert "warning: 0003-Say-so.patch: there is a pull request: https://forge.invalid/9" in done.stderr
    *commands, directory = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert directory == str(me.top / "new" / "pr")
    push = next(line for line in commands if line.startswith("git push"))
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_CONFIG_GLOBAL": str(me.top / "gitconfig")}
    script = f"{commands[0]}\n{commands[1]}\n{push}"
    shown = subprocess.run(["bash", "-euc", script], env=env, capture_output=True, text=True, check=True)
    assert "+So.\n" in shown.stdout
    assert git(me.top / "fork", "log", "-1", "--format=%s", "say-so") == "Say so"
    create = shlex.split(commands[-1])
    assert create[create.index("--head") + 1] == "ada:say-so"
    assert create[create.index("--title") + 1] == "Say so"
    assert Path(create[create.index("--body-file") + 1]).read_text(encoding="utf-8") == body(me)


def test_what_upstream_has_already_is_not_sent(me):
    commit(me.upstream, "Take it", {STEPS: SEVENTH})
    fetch(me)
    assert "0002-Take-the-seventh-step.patch changes nothing on top of origin/main" in fails(me, "2")
    pr(me, "4")
    assert log(me, "%s") == ["Say so", "Take the ninth step"]
    assert "- Take the seventh step (" not in body(me)


def test_conflict(me):
    commit(me.upstream, "Clash", {STEPS: FILES[STEPS].replace("return 7\n", "return 7777\n")})
    fetch(me)
    line = fails(me, "4")
    assert (
        f"0002-Take-the-seventh-step.patch does not apply to {git(me.upstream, 'rev-parse', 'HEAD')[:12]}"
        in line
    )
    assert f"conflict in {STEPS}; move the series there first: scripts/patchset refresh main-1 --onto" in line


def test_patch_by_another_name(me):
    pr(me, "take-the-SEVENTH")
    assert log(me, "%s", "take-the-seventh-step") == ["Take the seventh step"]


@pytest.mark.parametrize(
    ("patch", "options", "code", "said"),
    [
        ("12", [], 2, "no patch is called '12'; patches: 0001-Take-the-third-step.patch, "),
        ("step", [], 2, "several patches are called 'step'; patches: "),
        ("1", ["--branch", "a..b"], 1, "not a valid branch name"),
        (
            "1",
            ["--branch", "main"],
            1,
            "a branch named 'main' already exists; if branch main is no longer needed",
        ),
        ("1", ["--onto", "nowhere"], 1, "has no commit nowhere; fetch it: git -C "),
        ("1", ["--dir", "scripts"], 1, "scripts exists; remove it, or name another one with --dir"),
        ("1", ["--source", "scripts"], 1, "scripts is not the root of a git repository"),
    ],
)
def test_mistakes(me, patch, options, code, said):
    assert said in fails(me, patch, *options, code=code)


def test_dependency_that_the_series_lacks(me):
    edit(me.base / "series", ("0003-Say-so.patch\n", ""))
    assert "0004-Take-the-ninth-step.patch depends on 'Say so', which is no patch of this series" in fails(
        me, "3"
    )


def test_nobody(me):
    (me.top / "gitconfig").write_text("")
    assert "git does not know who you are; tell it: git config --global user.name" in fails(me, "1")


def test_clone_without_upstreams_main_and_without_a_fork(me):
    git(me.clone, "remote", "remove", "origin")
    git(me.clone, "remote", "remove", "mine")
    assert "has no branch main of https://github.com/apache/airflow; git -C " in fails(me, "1")
    done = pr(me, "1", "--onto", "main")
    assert "git push https://github.com/YOU/airflow take-the-third-step\n" in done.stdout
    assert "--head YOU:take-the-third-step " in done.stdout


def test_clone_of_the_tools_own(me):
    done = me.run("pr", "main-1", "4", "--dir", me.top / "new" / "pr")
    assert done.returncode == 0, done.stderr
    tree = me.top / "new" / "pr" / "airflow"
    assert git(tree, "rev-parse", "HEAD~3") == git(me.upstream, "rev-parse", "main")
    assert git(tree, "rev-parse", "--is-shallow-repository") == "true"
    assert me.run("pr", "main-1", "3").returncode == 0
