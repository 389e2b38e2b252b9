# SPDX-License-Identifier: Apache-2.0
"""Changes to a syntax tree that leave the layout around them as it is."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import libcst as cst

Edit = Callable[[cst.CSTNode], cst.CSTNode]


class Edits(cst.CSTTransformer):
    """Changes kept by the node of the original tree that they are for, and made in one go."""

    def __init__(self) -> None:
        super().__init__()
        self._edits: dict[cst.CSTNode, list[Edit]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._edits)

    def add(self, node: cst.CSTNode, edit: Edit) -> None:
        """Have ``edit`` make the new node; it is given the node with all changes of what is inside it."""
        self._edits[node].append(edit)

    def moved(self, node: cst.CSTNode) -> cst.CSTNode:
        """Return what becomes of a node that is to stand elsewhere."""
        made = node.visit(self)
        assert isinstance(made, cst.CSTNode)
        return made

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> cst.CSTNode:  # type: ignore[override]
        for edit in self._edits.get(original_node, ()):
            updated_node = edit(updated_node)
        return updated_node


def comments(node: cst.CSTNode) -> Counter[str]:
    """Return the comments inside a node."""
    found: Counter[str] = Counter()

    class Comments(cst.CSTVisitor):
        def visit_Comment(self, comment: cst.Comment) -> None:
            found[comment.value] += 1

    node.visit(Comments())
    return found


def without_argument(call: cst.Call, index: int) -> cst.Call:
    """Return the call without one argument. What was positional after a positional one gets its place."""
    removed = call.args[index]
    rest = [*call.args[:index], *call.args[index + 1 :]]
    if not rest:
        return call.with_changes(args=(), whitespace_before_args=cst.SimpleWhitespace(""))
    if index == len(rest):
        own, comma, after = rest[-1].comma, removed.comma, removed.whitespace_after_arg
        line = _first_line(own.whitespace_after) if isinstance(own, cst.Comma) else None
        if line is not None and line.comment is not None:
            # Each comment stays with the argument it is beside.
            if isinstance(comma, cst.Comma):
                comma = comma.with_changes(whitespace_after=_beginning(comma.whitespace_after, line))
            else:
                after = _beginning(after, line)
        rest[-1] = rest[-1].with_changes(comma=comma, whitespace_after_arg=after)
    return call.with_changes(args=rest)


def with_argument(call: cst.Call, keyword: str, value: cst.BaseExpression) -> cst.Call:
    """Return the call with one more argument, the last one, laid out as those before it."""
    new = cst.Arg(
        keyword=cst.Name(keyword),
        value=value,
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )
    if not call.args:
        return call.with_changes(args=(new,))
    *others, last = call.args
    if isinstance(last.comma, cst.Comma):
        new = new.with_changes(
            comma=last.comma.with_changes(whitespace_after=_bare(last.comma.whitespace_after))
        )
        between = _between(call, last.comma.whitespace_after)
        last = last.with_changes(comma=last.comma.with_changes(whitespace_after=between))
    else:
        new = new.with_changes(whitespace_after_arg=last.whitespace_after_arg)
        between = _between(call, last.whitespace_after_arg)
        last = last.with_changes(
            comma=cst.Comma(whitespace_after=between), whitespace_after_arg=cst.SimpleWhitespace("")
        )
        if comments(new.whitespace_after_arg):
            new = new.with_changes(whitespace_after_arg=_bare(new.whitespace_after_arg))
    return call.with_changes(args=(*others, last, new))


def _first_line(space: cst.BaseParenthesizableWhitespace) -> cst.TrailingWhitespace | None:
    return space.first_line if isinstance(space, cst.ParenthesizedWhitespace) else None


def _beginning(
    space: cst.BaseParenthesizableWhitespace, line: cst.TrailingWhitespace
) -> cst.BaseParenthesizableWhitespace:
    if isinstance(space, cst.ParenthesizedWhitespace):
        return space.with_changes(first_line=line)
    return cst.ParenthesizedWhitespace(first_line=line, indent=True)


def _between(call: cst.Call, end: cst.BaseParenthesizableWhitespace) -> cst.BaseParenthesizableWhitespace:
    """Return what stands between the last argument so far, with its comment in ``end``, and the new one."""
    separators = [
        arg.comma.whitespace_after for arg in call.args[:-1] if isinstance(arg.comma, cst.Comma)
    ] or [call.whitespace_before_args]
    model = separators[-1]
    own = isinstance(end, cst.ParenthesizedWhitespace) and comments(end)
    if isinstance(model, cst.ParenthesizedWhitespace):
        one_per_line = isinstance(call.args[-1].comma, cst.Comma) or len(call.args) > 1 or own
        if one_per_line:
            first = end.first_line if own and isinstance(end, cst.ParenthesizedWhitespace) else None
            return _bare(model).with_changes(**({"first_line": first} if first else {}))
    elif own and isinstance(end, cst.ParenthesizedWhitespace):
        return end
    return cst.SimpleWhitespace(" ")


def _bare(space: cst.BaseParenthesizableWhitespace) -> cst.BaseParenthesizableWhitespace:
    """Return line break and indentation without comments and empty lines."""
    if isinstance(space, cst.ParenthesizedWhitespace):
        return space.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=())
    return space


def with_comments(statement: cst.CSTNode, lost: Sequence[str]) -> cst.CSTNode:
    """Return the statement with comments above it."""
    lines = [cst.EmptyLine(comment=cst.Comment(text)) for text in lost]
    return statement.with_changes(leading_lines=(*statement.leading_lines, *lines))  # type: ignore[attr-defined]


def reordered(block: cst.CSTNode, order: Sequence[int]) -> cst.CSTNode:
    """Return the block with its statements in another order, each with the comments above it."""
    body = block.body  # type: ignore[attr-defined]
    return block.with_changes(body=[body[index] for index in order])


def without_unused(module: cst.Module, imports: Iterable[tuple[str, str]]) -> cst.Module:
    """
    Return the module without those imports that nothing names any more, not even a comment or a string.

    LibCST's own RemoveImportsVisitor would do it, but takes 20 s for a file of 8,000 lines.

    :param imports: module and name of what may have become unused
    """
    unused = {(place, name) for place, name in imports if len(re.findall(rf"\b{name}\b", module.code)) == 1}
    if not unused:
        return module
    made = module.visit(_WithoutImports(unused))
    assert isinstance(made, cst.Module)
    return made


class _WithoutImports(cst.CSTTransformer):
    def __init__(self, unused: set[tuple[str, str]]):
        super().__init__()
        self.unused = unused

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.RemovalSentinel:
        module, names = updated_node.module, updated_node.names
        if module is None or updated_node.relative or isinstance(names, cst.ImportStar):
            return updated_node
        place = cst.Module([]).code_for_node(module)
        rest = [alias for alias in names if (place, alias.evaluated_name) not in self.unused]
        if len(rest) == len(names) or comments(updated_node):
            return updated_node
        if not rest:
            return cst.RemoveFromParent()
        if rest[-1] is not names[-1]:
            rest[-1] = rest[-1].with_changes(comma=names[-1].comma)
        return updated_node.with_changes(names=rest)
