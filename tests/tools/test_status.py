# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import pty
import subprocess

from sampleset import edit


def test_plain(repository):
    lines = [line.split("\t") for line in repository.ok("status").splitlines()]
    upstream, leaves = "forwarded: no", "upstream releases the same"
    assert lines == [
        ["1.0", "1", "[demo] Take the third step right", "2", upstream, leaves],
        ["1.0", "2", "Take the seventh step right", "2", upstream, leaves],
        ["1.0", "3", "Say what a step is", "1", upstream, leaves],
    ]


def test_applied_upstream(repository):
    edit(repository.patches[2], ("Forwarded: no\n", "Forwarded: no\nApplied-Upstream: 3.2.0\n"))
    assert repository.ok("status").splitlines()[2].split("\t")[4] == "applied: 3.2.0"


def test_json(repository):
    records = json.loads(repository.ok("status", "--json"))
    assert [record["number"] for record in records] == [1, 2, 3]
    assert records[0] == {
        "base": "1.0",
        "number": 1,
        "patch": "0001-demo-Take-the-third-step-right.patch",
        "subject": "[demo] Take the third step right",
        "files": ["airflow-core/src/airflow/first.py", "airflow-core/tests/unit/test_third.py"],
        "trailers": {"Exit-condition": ["upstream releases the same"], "Forwarded": ["no"]},
    }


def test_terminal(repository):
    """A table, in which brackets are text and not markup."""
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        repository.command("status"),
        env=repository.env | {"TERM": "xterm", "COLUMNS": "200"},
        cwd=repository.root,
        stdout=writer,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    os.close(writer)
    said = b""
    try:
        while chunk := os.read(reader, 4096):
            said += chunk
    except OSError:  # the terminal is gone with the process
        pass
    os.close(reader)
    assert process.wait(timeout=300) == 0
    process.stderr.close()
    text = said.decode()
    assert "Can go when" in text
    assert "[demo] Take the third step right" in text


def test_one_base(repository):
    assert len(repository.ok("status", "1.0").splitlines()) == 3
    assert "unknown base '9.9'" in repository.fails("status", "9.9", code=2)


def test_no_patches(empty):
    done = empty.run("status")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "1.0: no patches\n"
    assert json.loads(empty.ok("status", "--json")) == []


def test_bad_option(repository):
    line = repository.fails("status", "--nonsense", code=2)
    assert line == "patchset: unrecognized arguments: --nonsense; see patchset --help"
