# SPDX-License-Identifier: Apache-2.0
"""The codemod: pairs of files before and after, what it says of the rest, and what it does with bad input."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from codemods import executors_to_runner
from codemods.executors_to_runner import BadInput, Report, main, rewrite, rewrite_text

SCRIPT = Path(executors_to_runner.__file__)
SAMPLES = Path(__file__).with_name("codemod")
NAMES = sorted(path.name.partition(".")[0] for path in SAMPLES.glob("*.before.py"))
OLD = """\
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

job = Job(executor=executor)
runner = SchedulerJobRunner(job)
"""
NEW = """\
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

job = Job()
runner = SchedulerJobRunner(job, executors=[executor])
"""
UNCLEAR = OLD + "Job(executor=other)\n"


def before(name: str) -> str:
    return (SAMPLES / f"{name}.before.py").read_text(encoding="utf-8")


def after(name: str) -> str:
    path = SAMPLES / f"{name}.after.py"
    return path.read_text(encoding="utf-8") if path.exists() else before(name)


@functools.cache
def rewritten(name: str) -> tuple[str, Counter[str], list[Report]]:
    return rewrite_text(before(name))


def marked(text: str) -> dict[int, str]:
    """Return what the comments of a sample demand to be said, by line."""
    found = ((i, re.search("# says: (.+)$", line)) for i, line in enumerate(text.splitlines(), 1))
    return {i: match[1] for i, match in found if match}


@pytest.fixture
def files(tmp_path):
    """Two files that are to be changed, in directories, and one beside them."""
    (tmp_path / "one").mkdir()
    for name, text in {"one/test_a.py": OLD, "test_b.py": OLD, "one/notes.txt": OLD}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


class TestPatterns:
    @pytest.mark.parametrize("name", NAMES)
    def test_pair(self, name):
        assert rewritten(name)[0] == after(name)

    @pytest.mark.parametrize("name", NAMES)
    def test_all_is_moved_or_reported(self, name):
        reports = rewritten(name)[2]
        expected = marked(before(name))
        assert [report.line for report in reports] == sorted(expected)
        for report in reports:
            assert expected[report.line] in report.problem
            assert report.remedy

    @pytest.mark.parametrize("name", NAMES)
    def test_again_changes_nothing(self, name):
        text, _, reports = rewritten(name)
        again, counts, reports_again = rewrite_text(text)
        assert again == text
        assert not counts
        assert reports_again == reports

    @pytest.mark.parametrize("name", NAMES)
    def test_result_compiles(self, name):
        compile(after(name), name, "exec")

    def test_patterns_are_counted(self):
        counts = rewritten("reads")[1]
        assert counts == {"comment": 1, "constructor": 1, "moved statement": 2, "read": 21}
        assert rewritten("patched")[1]["patch"] == 11
        assert rewritten("patched")[1]["unused executor"] == 1

    def test_all_comments_are_kept(self):
        for name in ("layout", "reads"):
            assert sorted(re.findall("# [a-z ]+$", before(name), re.MULTILINE)) == sorted(
                re.findall("# [a-z ]+$", after(name), re.MULTILINE)
            )

    def test_name_of_an_import_that_is_still_used(self):
        text = (
            "from unittest.mock import PropertyMock, patch\n"
            "with patch('airflow.jobs.job.Job.executors', new_callable=PropertyMock):\n"
            "    pass\n"
        )
        assert "import patch\n" in rewrite_text(text)[0]
        assert "import PropertyMock, patch\n" in rewrite_text(text + "PropertyMock()\n")[0]


class TestFiles:
    def test_directories_and_files(self, files):
        result = rewrite([files / "one", files / "test_b.py", files / "one" / "test_a.py"])
        assert result.changed == [files / "one" / "test_a.py", files / "test_b.py"]
        assert result.reports == []
        assert content(files) == {
            "one/notes.txt": OLD.encode(),
            "one/test_a.py": NEW.encode(),
            "test_b.py": NEW.encode(),
        }

    def test_check_writes_nothing(self, files):
        (files / "test_b.py").write_text(UNCLEAR, encoding="utf-8")
        untouched = content(files)
        result = rewrite([files], check=True)
        assert result.changed == [files / "one" / "test_a.py", files / "test_b.py"]
        assert [(report.path, report.line) for report in result.reports] == [(files / "test_b.py", 6)]
        assert content(files) == untouched

    def test_lines_of_reports_are_those_after_the_change(self, files):
        text = (
            "from airflow.jobs.job import Job\n"
            "from airflow.jobs.scheduler_job_runner import SchedulerJobRunner\n"
            "job = Job(\n    executor=executor,\n)\n"
            "runner = SchedulerJobRunner(job)\n"
            "Job(executor=other)\n"
        )
        (files / "test_b.py").write_text(text, encoding="utf-8")
        assert [report.line for report in rewrite([files / "test_b.py"], check=True).reports] == [7]
        assert [report.line for report in rewrite([files / "test_b.py"]).reports] == [5]

    def test_line_ends_mode_and_links_are_kept(self, files):
        target, link = files / "one" / "test_a.py", files / "test_link.py"
        target.write_bytes(OLD.replace("\n", "\r\n").encode())
        target.chmod(0o755)
        link.symlink_to(target)
        assert rewrite([link]).changed == [link]
        assert link.is_symlink()
        assert target.read_bytes() == NEW.replace("\n", "\r\n").encode()
        assert target.stat().st_mode & 0o777 == 0o755

    def test_encoding_is_kept(self, files):
        text = "# -*- coding: latin-1 -*-\n# caf\xe9\n" + OLD
        (files / "test_b.py").write_bytes(text.encode("latin-1"))
        rewrite([files / "test_b.py"])
        assert (files / "test_b.py").read_bytes() == text.replace(OLD, NEW).encode("latin-1")

    @pytest.mark.parametrize(
        ("formatted", "expected"),
        [
            pytest.param(
                True, "    runner = SchedulerJobRunner(\n        job, executors=[executor]\n    )\n"
            ),
            pytest.param(False, "    runner = SchedulerJobRunner(job, executors=[executor])\n"),
        ],
        ids=["as-ruff-does", "otherwise"],
    )
    def test_layout_by_ruff_where_it_was_so_before(self, files, formatted, expected):
        (files / "ruff.toml").write_text("line-length = 57\n", encoding="utf-8")
        text = "def test(executor):\n    job = Job(executor=executor)\n    runner = SchedulerJobRunner(job)\n"
        text += "    return runner\n" if formatted else "    return (runner)\n"
        imports = [
            "from airflow.jobs.job import Job\n",
            "from airflow.jobs.scheduler_job_runner import (\n    SchedulerJobRunner,\n)\n",
        ]
        (files / "test_b.py").write_text("".join([*imports, "\n\n", text]), encoding="utf-8")
        rewrite([files / "test_b.py"])
        assert expected in (files / "test_b.py").read_text(encoding="utf-8")

    def test_layout_of_airflow_without_its_settings(self, files):
        name = "a_name_that_makes_the_line_longer_than_the_default_of_ruff_allows"
        text = OLD.replace("runner = ", f"self.{name} = ")
        (files / "test_b.py").write_text(text, encoding="utf-8")
        rewrite([files / "test_b.py"])
        assert (
            (files / "test_b.py")
            .read_text(encoding="utf-8")
            .endswith(f"self.{name} = SchedulerJobRunner(\n    job, executors=[executor]\n)\n")
        )

    def test_nothing_is_left_beside(self, files):
        names = set(content(files))
        rewrite([files])
        assert set(content(files)) == names


class TestBadInput:
    """Whatever is wrong with one file, no other is changed either."""

    @pytest.fixture(autouse=True)
    def unchanged(self, files):
        untouched = content(files)
        yield
        assert {name: content(files)[name] for name in untouched} == untouched

    @pytest.mark.parametrize("bad", ["def f(:\n", OLD + "def f(:\n", "\0"])
    def test_not_python(self, files, bad):
        (files / "test_z.py").write_text(bad, encoding="utf-8")
        with pytest.raises(BadInput, match=r"test_z\.py.*nothing was changed"):
            rewrite([files])

    def test_not_text(self, files):
        (files / "test_z.py").write_bytes(b"job = executor = '\xff'\n")
        with pytest.raises(BadInput, match=r"test_z\.py"):
            rewrite([files])

    def test_missing(self, files):
        with pytest.raises(BadInput, match="test_z: no such file"):
            rewrite([files, files / "test_z"])

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    def test_not_writable(self, files):
        (files / "test_b.py").chmod(0o444)
        with pytest.raises(BadInput, match=r"test_b\.py.*not writable"):
            rewrite([files])

    def test_command_line(self, files, capsys):
        assert main([str(files), str(files / "no")]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1


class TestCommandLine:
    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        # Isolated, as an interpreter that is not told where the modules are.
        command = [sys.executable, "-I", SCRIPT, *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_says_what_it_did(self, files):
        done = self.run(files)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"{files}/one/test_a.py: 1 constructor",
            f"{files}/test_b.py: 1 constructor",
        ]
        again = self.run("--check", files)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    def test_exit_codes(self, files, capsys):
        assert main(["--check", str(files)]) == 1
        assert main([str(files)]) == 0
        (files / "test_b.py").write_text(UNCLEAR, encoding="utf-8")
        capsys.readouterr()
        assert main([str(files / "test_b.py")]) == 1
        first, second = capsys.readouterr().out.splitlines()
        assert first == f"{files}/test_b.py: 1 constructor"
        assert second.startswith(f"{files}/test_b.py:6: Job gets an executor, and no SchedulerJobRunner")
        assert main([str(files / "test_b.py")]) == 1


class TestVerb:
    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", SCRIPT.parents[1] / "patchsetlib", "codemod", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_same_as_the_program(self, files):
        assert self.run("--check", files).returncode == 1
        done = self.run(files)
        assert (done.returncode, done.stdout.count(": 1 constructor\n")) == (0, 2)
        assert self.run("--check", files).returncode == 0

    def test_bad_input_is_one_line(self, files):
        done = self.run(files / "no.py", files)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            f"patchset: {files}/no.py: no such file or directory; nothing was changed; check the path"
        ]
        assert (files / "test_b.py").read_text(encoding="utf-8") == OLD


def test_words_are_in_every_sample_that_is_changed_or_reported():
    for name in NAMES:
        if before(name) != after(name) or marked(before(name)):
            assert all(re.search(word, before(name)) for word in executors_to_runner.WORDS), name
