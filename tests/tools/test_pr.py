# SPDX-License-Identifier: Apache-2.0
"""``patchset pr``: what is on the branch, what the description says, and that nothing else is touched."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import samplecommit
import sampleset
from sampleset import MODULE, TRAILERS, Repository, tree_of, user_git

from patchsetlib.patches import base as bases
from patchsetlib.patches import series
from patchsetlib.shell.paths import ROOT
from patchsetlib.upstream import prbody, pullrequest
from patchsetlib.upstream.remotes import project

FIRST, SECOND = "airflow-core/src/airflow/first.py", "airflow-core/src/airflow/second.py"
GUIDE = "airflow-core/docs/guide.rst"
NEW_TEST = "airflow-core/tests/unit/test_{}.py"
FRAGMENT = "airflow-core/newsfragments/7.improvement.rst"
TEMPLATE = """\
<!-- The licence.
---
-->

<!--
How to contribute.
-->

<!-- Keep a line. -->

---
**^ Say what it is**
Read the [guidelines](https://example.org).
"""
RULE = "-->\n\n---\n"
"""The last comment, which is for the author, and the rule below the description."""
DISCLOSURE = "- [ ] Generative AI tooling was used for this change: (name and version)\n"
BODY = """\
The seventh step is wrong, which users notice as soon as they take more than six steps in a row, and then run-
time is lost.

What is done:
- the number is changed where it is made,
  which is the smallest way
- nothing else

  before    after
       7       77

A table of numbers was discarded. Risk: whoever relied on the wrong number sees another one.
"""
PAGE = "docs/benchmarks/1.0/README.md"
OPEN = "https://github.com/apache/airflow/pull/9"
SUBJECTS = [
    "Take the third step right",
    "Take the seventh step right",
    "Say in the guide what a step is",
    "Take the ninth step right",
    "Take the ninth step twice",
]


@pytest.fixture(scope="session")
def _with_pr_series(_pristine, tmp_path_factory) -> Repository:
    repository = sampleset.copy(_pristine, tmp_path_factory.mktemp("pr"))
    tree = repository.root.parent / "full"
    repository.ok("checkout", "1.0", "--source", repository.upstream, "--dir", tree)
    seventh = MODULE.replace("return 7\n", "return 77\n")
    repository.commit(
        tree,
        SUBJECTS[0],
        {
            FIRST: MODULE.replace("return 3\n", "return 33\n"),
            "airflow-core/tests/unit/test_first.py": "def test_first():\n    assert 33\n",
            NEW_TEST.format("third"): "def test_third():\n    pass\n",
        },
        trailers=f"{TRAILERS}Bug: https://github.com/apache/airflow/issues/7\n"
        "Bug: https://github.com/apache/airflow/discussions/8\nApplied-Upstream: 3.2.0\n",
    )
    repository.commit(
        tree, SUBJECTS[1], {SECOND: seventh}, body=BODY, trailers=f"{TRAILERS}Tests: none (why)\n"
    )
    repository.commit(
        tree,
        SUBJECTS[2],
        {GUIDE: "Guide\n=====\n\nWhat a step is.\n", FRAGMENT: "Say what a step is.\n"},
        trailers=f"{TRAILERS.replace('no', OPEN)}Depends-on: {SUBJECTS[1]}\n",
    )
    repository.commit(
        tree,
        SUBJECTS[3],
        {
            SECOND: seventh.replace("return 9\n", "return 99\n"),
            NEW_TEST.format("ninth"): "def test_ninth():\n    pass\n",
        },
        trailers=f"{TRAILERS}Co-authored-by: Another <another@invalid>\nDepends-on: {SUBJECTS[2]}\n",
    )
    # Has the lines of the one before, and does not say that it needs it.
    twice = seventh.replace("return 9\n", "return 99 * 2\n")
    repository.commit(tree, SUBJECTS[4], {SECOND: twice}, trailers=f"{TRAILERS}Tests: none (none)\n")
    repository.ok("export", "1.0", "--dir", tree)
    user_git("worktree", "remove", "--force", tree, cwd=repository.upstream)
    user_git("branch", "-D", "patchset/1.0", cwd=repository.upstream)
    user_git("tag", "-d", "patchset-base/1.0", cwd=repository.upstream)
    return repository


class Contributor:
    """A patch set, and somebody with a clone of upstream, whose main has moved on, and with a fork."""

    def __init__(self, repository: Repository):
        self.repository = repository
        self.upstream = repository.upstream
        self.clone = repository.root.parent / "my clone"
        self.fork = repository.root.parent / "fork"
        self.directory = repository.root.parent / "pull request"
        user_git("branch", "--move", "main", cwd=self.upstream)
        self.advance(
            {
                FIRST: MODULE.replace("def step_0", "# Moves all lines.\n\n\ndef step_0"),
                prbody.TEMPLATE: TEMPLATE,
            }
        )
        user_git("clone", "--quiet", self.upstream, self.clone, cwd=self.upstream)
        user_git("clone", "--quiet", "--bare", self.upstream, self.fork, cwd=self.upstream)
        user_git("remote", "set-url", "origin", "https://github.com/apache/airflow.git", cwd=self.clone)
        user_git("remote", "add", "mine", "git@github.com:me/airflow.git", cwd=self.clone)
        self.config = Path(repository.env["HOME"], ".gitconfig")
        self.config.write_text(
            "[user]\nname = Ada Contributor\nemail = ada@invalid\n"
            f'[url "{self.fork}"]\ninsteadOf = git@github.com:me/airflow.git\n'
            "[commit]\ngpgSign = true\n[diff]\nnoprefix = true\n"
        )

    def advance(self, files: dict[str, str]) -> None:
        """Commit to upstream's main."""
        for name, text in files.items():
            path = self.upstream / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        user_git("add", "--all", cwd=self.upstream)
        user_git("commit", "--quiet", "--message", "Go on", cwd=self.upstream)

    def fetch(self) -> None:
        user_git("fetch", "--quiet", self.upstream, "+main:refs/remotes/origin/main", cwd=self.clone)

    def arguments(self, patch: str, *options: str | Path) -> list[str | Path]:
        return ["pr", "1.0", patch, "--source", self.clone, "--dir", self.directory, *options]

    def pr(self, patch: str, *options: str | Path) -> str:
        return self.repository.ok("--quiet", *self.arguments(patch, *options))

    def fails(self, patch: str, *options: str | Path, code: int = 1) -> str:
        """Return the line that says why it fails, once it is sure that it has left nothing."""
        before = self.state()
        line = self.repository.fails(*self.arguments(patch, *options), code=code)
        assert self.state() == before
        return line

    def state(self) -> tuple[str, str, list[str]]:
        beside = sorted(path.name for path in self.directory.parent.iterdir())
        return self.git("for-each-ref"), self.git("worktree", "list", "--porcelain"), beside

    def git(self, *args: str | Path) -> str:
        return user_git(*args, cwd=self.clone)

    def log(self, form: str, branch: str) -> list[str]:
        return self.git("log", "--reverse", f"--format={form}", f"origin/main..{branch}").splitlines()

    @property
    def body(self) -> str:
        return (self.directory / "body.md").read_text(encoding="utf-8")


@pytest.fixture
def me(_with_pr_series, tmp_path) -> Contributor:
    return Contributor(sampleset.copy(_with_pr_series, tmp_path))


class Sent:
    """All patches, each made a pull request; the clone had changes that were not committed."""

    def __init__(self, me: Contributor):
        self.me = me
        tables = me.repository.root / PAGE
        tables.parent.mkdir(parents=True)
        tables.write_text("Tables\n")
        (me.clone / FIRST).write_text("edited\n")
        (me.clone / "staged").write_text("staged\n")
        me.git("add", "staged")
        (me.clone / "untracked").write_text("untracked\n")
        self.before = self.clone_state()
        self.done = [
            me.repository.run("--quiet", *me.arguments(str(number), "--dir", self.directory(number)))
            for number in range(1, 1 + len(SUBJECTS))
        ]

    def clone_state(self) -> tuple[dict[str, bytes], bytes, str]:
        files = {k: v for k, v in tree_of(self.me.clone).items() if not k.startswith(".git/")}
        return files, (self.me.clone / ".git/index").read_bytes(), (self.me.clone / ".git/HEAD").read_text()

    def directory(self, number: int) -> Path:
        return self.me.directory.with_name(f"pull request {number}")

    def tree(self, number: int) -> Path:
        return self.directory(number) / "airflow"

    def body(self, number: int) -> str:
        return (self.directory(number) / "body.md").read_text(encoding="utf-8")

    def commands(self, number: int) -> list[str]:
        return [line for line in self.done[number - 1].stdout.splitlines() if not line.startswith("#")][:-1]


@pytest.fixture(scope="module")
def sent(_with_pr_series, tmp_path_factory) -> Sent:
    return Sent(Contributor(sampleset.copy(_with_pr_series, tmp_path_factory.mktemp("sent"))))


def test_each_patch_becomes_a_pull_request(sent):
    for number, done in enumerate(sent.done, start=1):
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(sent.directory(number))
    listed = sent.me.git("worktree", "list", "--porcelain").splitlines()
    for number in range(1, 1 + len(SUBJECTS)):
        assert f"worktree {sent.tree(number)}" in listed


def test_branch_has_the_patch_on_upstreams_main(sent):
    branch = "take-the-third-step-right"
    assert sent.me.git("rev-parse", f"{branch}^") == sent.me.git("rev-parse", "origin/main")
    assert sent.me.git("log", "-1", "--format=%an <%ae> %cn <%ce>", branch) == (
        "Ada Contributor <ada@invalid> Ada Contributor <ada@invalid>"
    )
    assert sent.me.git("log", "-1", "--format=%B", branch) == f"{SUBJECTS[0]}\n\n{sampleset.BODY}".strip()
    assert user_git("symbolic-ref", "--short", "HEAD", cwd=sent.tree(1)) == branch
    assert user_git("status", "--porcelain", cwd=sent.tree(1)) == ""
    content = (sent.tree(1) / FIRST).read_text()
    assert "return 33\n" in content
    assert "# Moves all lines." in content


def test_what_the_clone_has_checked_out_is_not_touched(sent):
    assert sent.clone_state() == sent.before
    names = sent.me.git("for-each-ref", "--format=%(refname)").split()
    assert len([name for name in names if name.startswith("refs/heads/")]) == 1 + len(SUBJECTS)
    assert [name for name in names if "patchset" in name] == []


def test_what_a_patch_needs_is_below_it(sent):
    branch = "take-the-ninth-step-right"
    assert sent.me.log("%s", branch) == SUBJECTS[1:4]
    trailers = sent.me.git("log", "--format=%(trailers:only)", f"origin/main..{branch}").split("\n")
    assert [line for line in trailers if line] == ["Co-authored-by: Another <another@invalid>"]
    assert set(sent.me.log("%ae", branch)) == {"ada@invalid"}
    assert f"- {SUBJECTS[1]} (no pull request yet)\n" in sent.body(4)
    assert f"- {SUBJECTS[2]} ({OPEN})\n" in sent.body(4)
    assert sent.me.git("rev-parse", branch)[:12] in sent.body(4)


def test_what_has_the_lines_it_changes_is_below_it(sent):
    """Also where no trailer says so; what such a patch needs comes along."""
    assert sent.me.log("%s", "take-the-ninth-step-twice") == SUBJECTS[1:]
    assert "return 99 * 2\n" in (sent.tree(5) / SECOND).read_text()


def test_description(sent):
    assert sent.body(1) == (
        "related: #7\nrelated: https://github.com/apache/airflow/discussions/8\n\n"
        f"### What and why\n\n{prbody.unwrapped(sampleset.BODY)}\n\n"
        "### How it was tested\n\n"
        f"- New tests: `{NEW_TEST.format('third')}`\n"
        f"- Changed tests: `{NEW_TEST.format('first')}`\n"
        "- [ ] On this branch they pass: "
        f"`breeze run pytest {NEW_TEST.format('first')} {NEW_TEST.format('third')}`\n\n"
        "### Measured effect\n\n"
        f"Not measured on its own. The whole series: [{PAGE}](ADDRESS-OF-THE-PATCH-SET/{PAGE})\n\n"
        f"---\n\n### Generative AI\n\n{DISCLOSURE}\n"
        f"---\n{TEMPLATE.partition(RULE)[2]}"
    )


def test_description_of_a_patch_without_tests(sent):
    assert "### How it was tested\n\n- Tests: none (why)\n" in sent.body(2)


def test_warnings(sent):
    warnings = [done.stderr.splitlines() for done in sent.done]
    base = "warning: the series of 1.0 leaves upstream's existing tests and documents as they are"
    assert {each[0] for each in warnings} == {base}
    address = "warning: this repository has no remote to link to: replace ADDRESS-OF-THE-PATCH-SET in "
    assert all(each[-1].startswith(address) for each in warnings)
    assert [each[1:-1] for each in warnings] == [
        ["warning: 0001-Take-the-third-step-right.patch: upstream has its own form of this: 3.2.0"],
        [],
        [f"warning: 0003-Say-in-the-guide-what-a-step-is.patch: there is a pull request: {OPEN}"],
        [],
        [],
    ]


def test_commands_that_come_next(sent):
    commands = sent.commands(1)
    assert commands[0] == f"cd '{sent.tree(1)}'"
    user = {"cwd": sent.tree(1), "env": sent.me.repository.env, "capture_output": True, "text": True}
    shown = subprocess.run(["bash", "-c", commands[1]], **user)
    assert SUBJECTS[0] in shown.stdout
    assert "return 33" in shown.stdout
    push = next(line for line in commands if line.startswith("git push"))
    assert push == "git push mine take-the-third-step-right"
    assert subprocess.run(["bash", "-c", push], **user).returncode == 0
    assert user_git("log", "-1", "--format=%s", "take-the-third-step-right", cwd=sent.me.fork) == SUBJECTS[0]
    create = shlex.split(commands[-1])
    options = dict(zip(create[4::2], create[5::2], strict=True))
    assert create[:4] == ["gh", "pr", "create", "--draft"]
    assert Path(options.pop("--body-file")).read_text(encoding="utf-8") == sent.body(1)
    assert options == {
        "--repo": "apache/airflow",
        "--base": "main",
        "--head": "me:take-the-third-step-right",
        "--title": SUBJECTS[0],
    }


def test_a_newsfragment_gets_the_number_of_the_pull_request(sent):
    assert f"git mv {FRAGMENT} {FRAGMENT.replace('7', 'NUMBER')}" in sent.commands(3)
    assert "newsfragments" not in sent.done[0].stdout


def test_what_upstream_has_already_is_not_sent(me):
    me.advance({SECOND: MODULE.replace("return 7\n", "return 77\n")})
    me.fetch()

    assert "0002-Take-the-seventh-step-right.patch changes nothing on top of" in me.fails("2")
    me.pr("4")

    assert me.log("%s", "take-the-ninth-step-right") == SUBJECTS[2:4]
    assert SUBJECTS[1] not in me.body


def test_paragraphs_are_unwrapped_and_lists_and_tables_stay():
    assert prbody.unwrapped(BODY) == (
        "The seventh step is wrong, which users notice as soon as they take more than six steps in a row, "
        "and then run-time is lost.\n\n"
        "What is done:\n"
        "- the number is changed where it is made, which is the smallest way\n"
        "- nothing else\n\n"
        "```\n  before    after\n       7       77\n```\n\n"
        "A table of numbers was discarded. Risk: whoever relied on the wrong number sees another one."
    )


def test_template_that_asks_about_generative_ai(me):
    asks = f"{TEMPLATE}\n##### Was Gen-AI used?\n\n- [ ] Yes\n"
    me.advance({prbody.TEMPLATE: asks})
    me.fetch()

    me.pr("1")

    assert me.body.endswith(f"\n\n---\n{asks.partition(RULE)[2]}")
    assert me.body.count("- [ ] ") == 2
    assert "### Generative AI" not in me.body


def test_links_have_the_address_of_this_repository(me):
    root = me.repository.root
    (root / PAGE).parent.mkdir(parents=True)
    (root / PAGE).write_text("Tables\n")
    user_git("init", "--quiet", cwd=root)
    user_git("remote", "add", "origin", "https://me:secret@example.org/me/patches.git", cwd=root)
    user_git("commit", "--quiet", "--allow-empty", "--message", "All", cwd=root)
    commit = user_git("rev-parse", "HEAD", cwd=root)

    me.pr("1")

    assert f"[{PAGE}](https://example.org/me/patches/blob/{commit}/{PAGE})" in me.body
    assert "secret" not in me.body


def test_the_patch_by_other_names(me):
    file = me.repository.patches[1]
    found = set()
    for wanted in ("0002", file, file.name, file.stem, SUBJECTS[1], "seventh"):
        found.add(pullrequest.find(patches(me), str(wanted)).subject)
    assert found == {SUBJECTS[1]}


def patches(me) -> list[series.Patch]:
    return [series.parse(path) for path in me.repository.patches]


def test_a_patch_that_does_not_exist(me):
    assert "no patch is called '12'; patches: 0001-Take" in me.fails("12", code=2)
    several = me.fails("step right", code=2)
    assert "several patches are called 'step right'; patches: " in several
    assert "0003" not in several


def test_branch_that_exists(me):
    me.pr("1")
    again = me.repository.fails(*me.arguments("1", "--dir", me.directory.with_name("other")))
    assert "branch take-the-third-step-right exists in '../my clone'; keep it and name another" in again

    remedy = ["bash", "-euc", again.partition("or remove it: ")[2]]
    subprocess.run(remedy, env=me.repository.env, cwd=me.repository.root, check=True, capture_output=True)

    assert me.git("worktree", "list").count("\n") == 0
    shutil.rmtree(me.directory)
    me.pr("1")


def test_directory_that_exists(me):
    me.directory.mkdir()
    assert "../pull request exists; remove it or name another" in me.fails("1")


def test_name_that_is_no_name_of_a_branch(me):
    assert "'a..b' cannot be the name of a branch" in me.fails("1", "--branch", "a..b", code=2)


def test_conflict(me):
    me.advance({SECOND: MODULE.replace("return 7\n", "return 7777\n")})
    me.fetch()

    line = me.fails("4")

    assert f"0002-Take-the-seventh-step-right.patch cannot be moved: conflict in {SECOND}; " in line


@pytest.mark.parametrize("missing", ["name", "email"])
def test_nobody(me, missing):
    me.config.write_text(me.config.read_text().replace(f"{missing} = ", "x = "))
    assert "git does not know who you are; tell it: git config --global user.name " in me.fails("1")


def test_identity_of_the_clone_comes_first(me):
    me.git("config", "user.email", "ada@work.invalid")
    me.pr("1", "--branch", "mine/third")
    assert me.log("%ae %ce %s", "mine/third") == [f"ada@work.invalid ada@work.invalid {SUBJECTS[0]}"]


def test_clone_without_upstreams_main_and_without_a_fork(me):
    me.git("remote", "remove", "origin")
    me.git("remote", "remove", "mine")

    line = me.fails("1")

    assert "has no branch main of https://github.com/apache/airflow" in line
    assert line.endswith("or name a commit with --onto")
    out = me.pr("1", "--onto", "1.0")
    assert me.git("rev-parse", "take-the-third-step-right^") == me.git("rev-parse", "1.0^{commit}")
    # That commit has no template.
    assert me.body.endswith(f"\n\n{DISCLOSURE}\n---\n")
    assert "git push https://github.com/YOU/airflow take-the-third-step-right\n" in out
    assert "--head YOU:take-the-third-step-right " in out


def test_no_clone(me):
    shutil.rmtree(me.clone / ".git")
    line = me.repository.fails(*me.arguments("1"))
    assert "is not the root of a git repository; give --source a clone of apache/airflow" in line


def test_what_a_killed_run_left_is_removed(me):
    left = me.directory.with_name(f".{me.directory.name}.partial-00000000")
    left.mkdir()
    me.git("worktree", "add", "--quiet", "-b", "take-the-third-step-right", left / "airflow", "1.0")

    me.pr("1")

    assert not left.exists()
    assert me.log("%s", "take-the-third-step-right") == SUBJECTS[:1]
    assert me.git("worktree", "list").count("\n") == 1


def test_codemod_is_run_and_is_part_of_the_commit(commit_base):
    """In a clone of the tools' own, on upstream's main of now."""
    Path(commit_base.env["HOME"], ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@invalid\n")
    user_git("branch", "--move", "main", cwd=commit_base.upstream)
    directory = commit_base.root.parent / "pr"

    done = commit_base.run("--quiet", "pr", samplecommit.NAME, "1", "--dir", directory)

    assert done.returncode == 0, done.stderr
    assert "leaves upstream's existing tests" not in done.stderr
    tree = directory / "airflow"
    main = user_git("rev-parse", "main", cwd=commit_base.upstream)
    assert user_git("rev-parse", "HEAD^", cwd=tree) == main
    changed = user_git("diff", "--name-only", "HEAD^", cwd=tree).split()
    assert {samplecommit.BULK, samplecommit.OLD_TEST, samplecommit.FIRST} <= set(changed)
    assert "Codemod" not in user_git("log", "-1", "--format=%B", cwd=tree)
    body = (directory / "body.md").read_text(encoding="utf-8")
    assert "(ADDRESS" in body
    assert "[scripts/codemods/say_one.py]" in body


def test_measured_effect_is_from_the_raw_data():
    """A patch that a benchmark ends with and without has a table, whose figures are in the page of tables."""
    links = prbody.Links("https://example.org/blob/0")
    page = (ROOT / "docs/benchmarks/3.1.3/README.md").read_text(encoding="utf-8")
    tables = 0
    for patch in series.load(bases.load("3.1.3")).patches:
        text = prbody._measured(patch, links)
        assert "https://example.org/blob/0/docs/benchmarks/3.1.3/README.md" in text
        rows = [line for line in text.splitlines() if line.startswith("| ") and "whole tree" in line]
        if not rows:
            assert text.startswith("Not measured on its own.")
            continue
        tables += 1
        raw = re.search(r"Raw data: \[(.*?)\]", text)
        assert raw
        assert (ROOT / raw[1]).is_file()
        for row in rows:
            when, what, figure, *values = (cell.strip() for cell in row.strip("|").split("|"))
            start = re.compile(rf"\| {when} +\| {what} +\| {figure} ")
            same = [line for line in page.splitlines() if start.match(line)]
            assert any(all(f" {value} |" in line for value in values[:2]) for line in same), row
    assert tables >= 3


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("https://github.com/apache/airflow", "https://github.com/apache/airflow"),
        ("https://github.com/apache/airflow.git/", "https://github.com/apache/airflow"),
        ("https://me:secret@example.org:8443/me/some.thing.git", "https://example.org/me/some.thing"),
        ("git@github.com:me/airflow.git", "https://github.com/me/airflow"),
        ("ssh://git@github.com/me/airflow", "https://github.com/me/airflow"),
        ("../airflow", None),
        ("/srv/git/airflow.git", None),
        ("file:///srv/airflow/airflow", None),
    ],
)
def test_address_of_a_remote(url, web):
    found = project(url)
    assert (found and found.web) == web
