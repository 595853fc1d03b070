"""Mutants of a file: one comparison, operator, constant or condition of it is another one."""

import ast
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path


def _both_ways(pairs: str) -> dict[str, str]:
    words = [pair.split() for pair in pairs.split(", ")]
    return dict([*words, *(reversed(pair) for pair in words)])


KINDS = _both_ways("Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, Add Sub, Mult Div, And Or")
KINDS |= {"FloorDiv": "Div", "Mod": "Mult", "Pow": "Mult", "BitAnd": "BitOr", "BitOr": "BitAnd"}
NAMES = _both_ways("min max, amin amax, minimum maximum, argmin argmax, any all, zeros ones")
NOT_RUN = {"annotation", "returns", "decorator_list", "bases"}
"""Fields of nodes in which nothing is changed, as types and decorators are not this code's."""


@dataclass(frozen=True)
class Mutant:
    """One change of a file."""

    path: Path
    place: int
    """Its number among the changes of the file."""
    function: str
    """The outermost function that it is in, such as `Limits.fits`; empty where it is in none."""
    line: int
    change: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.function or 'module'} #{self.place}: {self.change}"

    def source(self) -> bytes:
        """Return the changed file."""
        tree = ast.parse(self.path.read_text())
        _, old, new = list(_changes(tree))[self.place]
        return ast.unparse(_Exchange(old, new).visit(tree)).encode()


def mutants(path: Path) -> list[Mutant]:
    """Return all mutants of a file."""
    changes = _changes(ast.parse(path.read_text()))
    return [
        Mutant(path, place, function, old.lineno, f"{_words(old)} -> {_words(new)}")
        for place, (function, old, new) in enumerate(changes)
    ]


class _Exchange(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _words(node: ast.AST) -> str:
    return ast.unparse(node.test if isinstance(node, ast.If) else node)


def _changes(
    node: ast.AST, function: str = "", scope: str = ""
) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Yield the outermost function, a node in it, and a node for its place."""
    if isinstance(node, ast.Raise | ast.JoinedStr):  # a message
        return
    yield from ((function, node, new) for new in _others(node))
    for field, value in ast.iter_fields(node):
        inner, place = function, scope
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            place = f"{scope}{node.name}."
            if isinstance(node, ast.FunctionDef) and field == "body":
                inner = function or place[:-1]
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in NOT_RUN:
                yield from _changes(child, inner, place)


def _others(node: ast.AST) -> Iterator[ast.AST]:
    """Yield nodes for the place of one."""
    match node:
        case ast.Compare():
            for i, sign in enumerate(node.ops):
                yield _with(node, ops=[*node.ops[:i], _other_kind(sign), *node.ops[i + 1 :]])
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp() if type(node.op).__name__ in KINDS:
            yield _with(node, op=_other_kind(node.op))
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield node.operand
        case ast.Constant(value=bool() | int() | float() as value):
            yield _with(node, value=_other_number(value))
        case ast.Name() | ast.Attribute() | ast.keyword():
            field = {ast.Name: "id", ast.Attribute: "attr", ast.keyword: "arg"}[type(node)]
            if other := NAMES.get(getattr(node, field)):
                yield _with(node, **{field: other})
        case ast.If() | ast.IfExp() if isinstance(node.test, CONDITIONS):
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Break() | ast.Continue():
            made = ast.Break() if isinstance(node, ast.Continue) else ast.Continue()
            yield ast.copy_location(made, node)


def _other_number(value: float) -> float:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else 2 * value or 1.0


CONDITIONS = ast.Name | ast.Attribute | ast.Call
"""Conditions that have no operator to be changed."""


def _other_kind(sign: ast.AST) -> ast.AST:
    made: ast.AST = getattr(ast, KINDS[type(sign).__name__])()
    return made


def _with(node: ast.AST, **fields: object) -> ast.AST:
    other = copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other
