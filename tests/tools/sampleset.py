# SPDX-License-Identifier: Apache-2.0
"""A small patch set to test the tools on: real git, a real sdist, a real upstream repository, no network."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

MODULE = "".join(f"def step_{n}():\n    return {n}\n\n\n" for n in range(20))
CARRIED = {
    "pyproject.toml": "[project]\nname = 'demo-core'\n",
    "src/airflow/first.py": MODULE,
    "src/airflow/second.py": MODULE,
}
NOT_CARRIED = {
    "docs/guide.rst": "Guide\n=====\n\nHow it works today.\n",
    "tests/unit/test_first.py": "def test_first():\n    assert True\n",
}
BODY = """\
The problem is that step 3 is wrong, which users notice as soon as they take more than two steps in a row.

Changing the number where it is made is the smallest way. Risk: whoever relied on the wrong number sees
another one.
"""
TRAILERS = "Exit-condition: upstream releases the same\nForwarded: no\n"
# Root may read and write everything, unless it gives that up.
UNPRIVILEGED = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def message(subject: str, body: str = BODY, trailers: str = TRAILERS) -> str:
    """Return a commit message that check has nothing to say about."""
    return f"{subject}\n\n{body}\n{trailers}"


def user_git(*args: str | Path, cwd: Path, **env: str) -> str:
    """Run git as a user would, with nothing set but an identity."""
    identity = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Some User",
        "GIT_AUTHOR_EMAIL": "user@invalid",
        "GIT_COMMITTER_NAME": "Some User",
        "GIT_COMMITTER_EMAIL": "user@invalid",
    }
    done = subprocess.run(
        ["git", *map(str, args)], cwd=cwd, env=os.environ | identity | env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"git {args}: {done.stderr}"
    return done.stdout.strip()


def write(directory: Path, files: dict[str, str]) -> None:
    """Write ``files``: path below ``directory`` to text."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def edit(path: Path, *replacements: tuple[str, str]) -> None:
    """Replace texts in a file, each of which must be there."""
    text = path.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def tree_of(directory: Path) -> dict[str, bytes]:
    """Return the content of every file below ``directory``, to see that nothing changed."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def snapshot(root: Path, *patterns: str) -> dict[str, tuple]:
    """Return all there is to know of each file and link, and of a directory whether it is there."""
    found = {}
    for path in sorted({path for pattern in patterns or ["*"] for path in root.rglob(pattern)}):
        status = path.lstat()
        about: tuple = (status.st_mode, status.st_uid, status.st_gid)
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            about += (digest, status.st_mtime_ns, status.st_ino)
        found[str(path.relative_to(root))] = about
    return found


@dataclass
class Repository:
    """A copy of the patch set's tools with a base of its own."""

    root: Path
    upstream: Path
    """A full clone of what the base was released from."""
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    name: str = "1.0"

    @property
    def base(self) -> Path:
        return self.root / "airflow-core" / self.name

    @property
    def source(self) -> Path:
        """Where checkout puts a tree unless told otherwise."""
        return self.root / "work" / self.name / "source"

    @property
    def patches(self) -> list[Path]:
        return sorted(self.base.glob("*.patch"))

    def command(self, *args: str | Path) -> list[str]:
        return [sys.executable, "-I", str(self.root / "scripts" / "patchsetlib"), *map(str, args)]

    def run(self, *args: str | Path, **options) -> subprocess.CompletedProcess[str]:
        """Run the tool."""
        options = {"cwd": self.root, "env": self.env, "stdin": subprocess.DEVNULL} | options
        return subprocess.run(self.command(*args), capture_output=True, text=True, **options)

    def ok(self, *args: str | Path, **options) -> str:
        """Run the tool, which must succeed, and return its stdout."""
        done = self.run(*args, **options)
        assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
        return done.stdout

    def fails(self, *args: str | Path, code: int = 1, **options) -> str:
        """Run the tool, which must fail with one clear line, and return that line."""
        done = self.run("--quiet", *args, **options)
        assert done.returncode == code, f"{args}: {done.returncode} {done.stdout}{done.stderr}"
        lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("patchset: ")
        assert "Traceback" not in done.stderr
        return lines[0]

    def commit(self, tree: Path, subject: str, files: dict[str, str], **parts: str) -> None:
        """Commit ``files`` (monorepo path to text) in a tree, as a user would; the cover letter names it."""
        with (self.base / "cover-letter.md").open("a", encoding="utf-8") as letter:
            letter.write(f"- {subject}\n")
        write(tree, files)
        user_git("add", "--all", cwd=tree)
        user_git("commit", "--quiet", "--message", message(subject, **parts), cwd=tree)

    def change(self, files: dict[str, str | None], subject: str = "Take a step right") -> None:
        """Add a patch to the series."""
        tree = self.root.parent / "tree"
        self.ok("checkout", self.name, "--dir", tree)
        for name in [name for name, text in files.items() if text is None]:
            (tree / name).unlink()
        self.commit(tree, subject, {name: text for name, text in files.items() if text is not None})
        self.ok("export", self.name, "--dir", tree)
        shutil.rmtree(tree)


def sdist(directory: Path, project: str, files: dict[str, str]) -> tuple[Path, str]:
    """Write the sdist of a small project and return its path and its SHA-256."""
    name = f"{project.replace('-', '_')}-1.0"
    path = directory / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for file, text in {"PKG-INFO": f"Name: {project}\n", **files}.items():
            member = tarfile.TarInfo(f"{name}/{file}")
            member.size = len(text.encode())
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _upstream(directory: Path) -> str:
    """Make the repository that the small project was released from and return the commit of its tag."""
    directory.mkdir()
    user_git("init", "--quiet", cwd=directory)
    # A clone's own attributes change hunk headers, unless an export sees to it that they do not.
    (directory / ".gitattributes").write_text("*.py diff=tex\n*.rst -diff\n", encoding="utf-8")
    write(directory / "airflow-core", CARRIED | NOT_CARRIED)
    user_git("add", "--all", cwd=directory)
    date = {"GIT_AUTHOR_DATE": "@1700000000 +0000", "GIT_COMMITTER_DATE": "@1700000000 +0000"}
    user_git("commit", "--quiet", "--message", "Release 1.0", cwd=directory, **date)
    user_git("tag", "1.0", cwd=directory)
    return user_git("rev-parse", "HEAD", cwd=directory)


def _base_toml(commit: str) -> str:
    return (
        'version = "1.0"\nseries-version = 1\ndefault = true\n'
        f'[git]\ntag = "1.0"\ncommit = "{commit}"\ndate = "2025-01-01T00:00:00+00:00"\n'
        '[python]\nrange = ">=3.10"\n'
    )


def add_distribution(
    repository: Repository, project: str, directory: str, files: dict[str, str], wheel: str | None = None
) -> None:
    """Give the base a distribution whose sdist has been downloaded; ``wheel`` is the hash of its wheel."""
    path, sha256 = sdist(repository.root.parent, project, files)
    downloads = repository.root / "work" / "downloads" / sha256
    downloads.mkdir(parents=True)
    shutil.move(path, downloads)
    with (repository.base / "base.toml").open("a", encoding="utf-8") as toml:
        toml.write(
            f'[[distribution]]\nproject = "{project}"\ndirectory = "{directory}"\nversion = "1.0"\n'
            f'sdist = "{sha256}"\nwheel = "{wheel or sha256}"\n'
        )


def copy(repository: Repository, directory: Path) -> Repository:
    top = directory / repository.root.parent.name
    shutil.copytree(repository.root.parent, top, symlinks=True)
    home = directory / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PATCHSET_", "XDG_", "PYTHON"))}
    # No index can be reached: whatever is not in work/downloads is an error.
    offline = {"HOME": str(home), "UV_OFFLINE": "1", "COLUMNS": "500"}
    return Repository(top / "set", top / "upstream", env | offline)


def make(directory: Path) -> Repository:
    """Make a patch set whose series has no patches."""
    # The space and the non-ASCII letter are part of every test.
    top = directory / "patch sét"
    root, upstream = top / "set", top / "upstream"
    shutil.copytree(SCRIPTS, root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    repository = Repository(root, upstream)
    repository.base.mkdir(parents=True)
    (repository.base / "base.toml").write_text(_base_toml(_upstream(upstream)), encoding="utf-8")
    add_distribution(repository, "demo-core", "airflow-core", CARRIED)
    (repository.base / "series").write_text("# The patches of 1.0.\n\n", encoding="utf-8")
    (repository.base / "cover-letter.md").write_text("In this order:\n\n", encoding="utf-8")
    return repository


def make_with_series(pristine: Repository, directory: Path) -> Repository:
    """Copy the patch set and give it three patches; the last one only creates a file."""
    repository = copy(pristine, directory)
    source, tests = "airflow-core/src/airflow", "airflow-core/tests/unit"
    repository.ok("checkout", "1.0")
    tree = repository.source
    repository.commit(
        tree,
        "[demo] Take the third step right",
        {
            f"{source}/first.py": MODULE.replace("return 3\n", "return 33\n"),
            f"{tests}/test_third.py": "def test_third():\n    pass\n",
        },
    )
    repository.commit(
        tree,
        "Take the seventh step right",
        {
            f"{source}/second.py": MODULE.replace("return 7\n", "return 77\n"),
            f"{tests}/test_seventh.py": "def test_seventh():\n    pass\n",
        },
    )
    repository.commit(tree, "Say what a step is", {"airflow-core/docs/steps.rst": "A step — briefly.\n"})
    repository.ok("export", "1.0")
    shutil.rmtree(tree)
    return repository
