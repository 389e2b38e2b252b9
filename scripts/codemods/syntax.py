# SPDX-License-Identifier: Apache-2.0
"""What a piece of syntax says by itself, without knowing what its names stand for."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

EXECUTORS = ("executor", "executors")
"""The attributes that this is about."""


def dotted(node: cst.CSTNode) -> str | None:
    """Return ``a.b.c`` for a name or for attributes of one, else ``None``."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr.value}"
    return None


def text_of(node: cst.CSTNode | None) -> str | None:
    """Return what a string literal says, or ``None`` if it is not one, or not known before it runs."""
    if isinstance(node, cst.SimpleString | cst.ConcatenatedString):
        text = node.evaluated_value
        return text if isinstance(text, str) else None
    return None


def last_name(node: cst.BaseExpression) -> str:
    """Return ``c`` for ``c`` and for ``a.b.c``."""
    if isinstance(node, cst.Attribute):
        return node.attr.value
    return node.value if isinstance(node, cst.Name) else ""


def names_in(node: cst.CSTNode) -> set[str]:
    """Return the names ``a`` and ``a.b`` that an expression reads."""
    found: set[str] = set()

    class Names(cst.CSTVisitor):
        def visit_Name(self, name: cst.Name) -> None:
            found.add(name.value)

        def visit_Attribute(self, attribute: cst.Attribute) -> bool:
            if path := dotted(attribute):
                found.add(path)
                return False
            attribute.value.visit(self)
            return False

        def visit_Arg_keyword(self, arg: cst.Arg) -> None:
            return None

    node.visit(Names())
    return found


def parameters(parameters: cst.Parameters) -> Iterator[cst.Param]:
    yield from parameters.posonly_params
    yield from parameters.params
    if isinstance(parameters.star_arg, cst.Param):
        yield parameters.star_arg
    yield from parameters.kwonly_params
    if parameters.star_kwarg is not None:
        yield parameters.star_kwarg


def captured(pattern: cst.CSTNode) -> list[cst.Name]:
    found: list[cst.Name] = []

    class Captures(cst.CSTVisitor):
        def visit_MatchAs(self, node: cst.MatchAs) -> None:
            if node.name is not None:
                found.append(node.name)

        def visit_MatchStar(self, node: cst.MatchStar) -> None:
            if node.name is not None:
                found.append(node.name)

    pattern.visit(Captures())
    return found
