# SPDX-License-Identifier: Apache-2.0
"""Errors a user can act on."""

from __future__ import annotations


class PatchsetError(Exception):
    """
    A problem that ends the command with one line: what is wrong, then what to do.

    :param problem: what is wrong, naming the file, base or option
    :param remedy: what the user can do about it
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = ""):
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class UsageError(PatchsetError):
    """The command line asks for something that does not exist."""

    exit_code = 2
