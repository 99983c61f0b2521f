# SPDX-License-Identifier: Apache-2.0
"""Source without what functions say of types, which nobody reads at run time; each line and column is where it was.

Classes keep theirs: the agent's records are made of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

Span = tuple[int, int, int, int]
"""First line and column, and where it ends; lines from 1, columns in bytes from 0, as ``ast`` counts."""


def without_annotations(source: bytes) -> bytes:
    """Return a module's source with spaces in place of the annotations of parameters and results.

    Raises:
        SyntaxError: it is no source.
    """
    lines = [bytearray(line) for line in source.split(b"\n")]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for span in [*_of_parameters(node.args), *_of_result(node, lines)]:
                _blank(lines, span)
    return b"\n".join(lines)


def _of_parameters(given: ast.arguments) -> Iterator[Span]:
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    for one in named:
        if one is not None and (type_ := one.annotation) is not None:
            yield one.lineno, one.col_offset + len(one.arg.encode()), *_end(type_)


def _of_result(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[bytearray]) -> Iterator[Span]:
    """Yield the span from the arrow on; none where it goes over lines, which spaces would leave without brackets."""
    type_ = function.returns
    if type_ is not None and type_.lineno == type_.end_lineno:
        yield type_.lineno, lines[type_.lineno - 1].rindex(b"->", 0, type_.col_offset), *_end(type_)


def _end(node: ast.expr) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


def _blank(lines: list[bytearray], span: Span) -> None:
    first, begin, last, end = span
    for number in range(first, last + 1):
        line = lines[number - 1]
        start, stop = begin if number == first else 0, end if number == last else len(line)
        line[start:stop] = b" " * (stop - start)
