# SPDX-License-Identifier: Apache-2.0
"""
One module per verb of ``scripts/patchset``, found by name.

A verb has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args) -> int`` (the exit code).
With ``PASSES_ON = True`` what follows ``--`` is not parsed, and is in ``args.rest``.
"""
