"""Variants as substitutions: a definition or a parameter replaced in the text, constants folded, the rest kept."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from .errors import CellError
from .parse import parse, source_lines

_TARGET = "x"  # a left side for an expression that is parsed alone


def substitute(text: str, changes: Mapping[str, str | float]) -> str:
    """The text with each name of `changes` defined by its expression, or replaced by its number."""
    parsed = parse(text)
    defined: dict[str, list] = {}
    for d in parsed.definitions:
        for target in d.targets:
            defined.setdefault(_plain(ast.unparse(target)), []).append(d)
    bodies, numbers = {}, {}
    called = {id(n.func) for d in parsed.definitions for n in ast.walk(d.expression) if isinstance(n, ast.Call)}
    names = {n.id for d in parsed.definitions for n in ast.walk(d.expression)
             if isinstance(n, ast.Name) and id(n) not in called}
    for name, value in changes.items():
        _check(name, value)
        keys = [k for k in defined if k == name] or [k for k in defined if k.split("[")[0] == name and not _is_end(k)]
        number = _number(value)
        if not keys and (name not in names or name in parsed.functions):
            raise CellError(f"`{name}` stands nowhere in this cell.", remedy="Its names: " + ", ".join(
                sorted({*names, *(k.split("[")[0] for k in defined)} - set(parsed.functions))) + ".")
        if keys:
            if len(defined[keys[0]][0].targets) > 1:
                raise CellError(f"`{name}` is one of several results of a call.", remedy="Replace the whole line.")
            bodies[defined[keys[0]][0].line.number] = (keys[0], str(value))
            if number is not None and not _shifted(parsed, name):
                numbers[name] = number
        elif number is None:
            bodies.setdefault(0, ("", ""))
            numbers[name] = value
        else:
            numbers[name] = number
    bodies.pop(0, None)
    dropped = {k for k in numbers if _number(numbers[k]) is not None}
    statements = {d.line.number: d for d in (*parsed.definitions, *parsed.declarations.values(),
                                             *parsed.functions.values())}
    lines = []
    for line in source_lines(text):
        d = statements.get(line.number)
        if line.number in bodies:
            target, body = bodies[line.number]
            if target.split("[")[0] not in dropped:
                lines.append(_folded(f"{target} = {body}", numbers) + _comment(line.source))
        elif hasattr(d, "expression"):
            folded = _folded(line.source, numbers)
            lines.append(folded if folded == line.source else folded + _comment(line.source))
        elif d is None or d.name not in dropped:
            lines.append(line.source)
    return "\n".join(_without_unused(lines, text))


def _check(name: str, value) -> None:
    """What is put in place of a name is a finite number or one expression."""
    if isinstance(value, str):
        if "\n" in value or "\r" in value:
            raise CellError(f"The substitution for `{name}` has several lines.", remedy="Give one expression.")
        parse(f"{_TARGET} = {value}")
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise CellError(f"`{name}` cannot be replaced by {value!r}.", remedy="Give a finite number or an expression.")


def _comment(source: str) -> str:
    """The comment that ends a line, with the space before it."""
    statement = source.split("#", 1)[0].rstrip()
    return source[len(statement):] if "#" in source else ""


def _is_end(key: str) -> bool:
    return any(re.fullmatch(r"0|-\d+|[A-Z]\w*\+\d+", p.strip()) for p in key.partition("[")[2].rstrip("]").split(","))


def _number(value) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    try:
        return float(value) if "." in str(value) or "e" in str(value) else int(value)
    except ValueError:
        return None


def _shifted(parsed, name) -> bool:
    """Whether a name is read away from its own step: then nothing may be substituted for it."""
    for d in parsed.definitions:
        for n in ast.walk(d.expression):
            if isinstance(n, ast.Subscript) and n.value.id == name:
                for p in n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]:
                    if not (isinstance(p, ast.Name) and p.id.islower()):
                        return True
    return False


def _plain(text: str) -> str:
    """ast.unparse, with positions written without spaces."""
    return re.sub(r"\[([^\[\]]*)\]", lambda m: "[" + m.group(1).replace(" ", "") + "]", text)


def _folded(line: str, numbers: Mapping[str, float | str]) -> str:
    """The line with numbers in place of names; a line that names none of them stays as the author wrote it."""
    statement = line.split("#", 1)[0]
    if not numbers or not any(re.search(rf"\b{re.escape(n)}\b", statement) for n in numbers):
        return line
    (definition, *_), functions = parse(line + "\nunused = 0").definitions, parse(line + "\nunused = 0").functions
    if functions:
        return line
    body = _Fold(numbers).visit(definition.expression)
    targets = ", ".join(_plain(ast.unparse(t)) for t in definition.targets)
    return f"{targets} = {_plain(ast.unparse(_Brackets().visit(body)))}"


class _Brackets(ast.NodeTransformer):
    """Brackets that Python could do without and the notation wants: `(U @ h[t]) * r[t]`."""

    def visit_BinOp(self, n):
        self.generic_visit(n)
        mixed = isinstance(n.left, ast.BinOp) and isinstance(n.op, ast.MatMult) != isinstance(n.left.op, ast.MatMult)
        if mixed and isinstance(n.op, (ast.MatMult, ast.Mult, ast.Div)):
            n.left = ast.Name(f"({ast.unparse(n.left)})")
        return n


class _Fold(ast.NodeTransformer):
    """0 * x = 0, 1 * x = x, x + 0 = x; numbers meet numbers."""

    def __init__(self, numbers):
        self.numbers = numbers

    def visit_Name(self, n):
        return self.value(n.id, n)

    def visit_Subscript(self, n):
        return self.value(n.value.id, n)

    def visit_Call(self, n):
        n.args = [self.visit(a) for a in n.args]
        for k in n.keywords:
            k.value = self.visit(k.value)
        return n

    def value(self, name, n):
        if name not in self.numbers:
            return n
        number = self.numbers[name]
        if isinstance(number, str):
            return parse(f"{_TARGET} = {number}").definitions[0].expression
        return ast.Constant(number) if number >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-number))

    def visit_BinOp(self, n):
        a, b = self.visit(n.left), self.visit(n.right)
        zero_a, zero_b = _is(a, 0), _is(b, 0)
        match n.op:
            case ast.Mult() | ast.MatMult() if zero_a or zero_b:
                return ast.Constant(0)
            case ast.Mult() if _is(a, 1) or _is(b, 1):
                return b if _is(a, 1) else a
            case ast.Add() if zero_a or zero_b:
                return b if zero_a else a
            case ast.Sub() if zero_b:
                return a
            case ast.Sub() if zero_a:
                return ast.UnaryOp(ast.USub(), b)
            case ast.Div() if zero_a or _is(b, 1):
                return a
        if isinstance(a, ast.Constant) and isinstance(b, ast.Constant):
            match n.op:
                case ast.Add():
                    return ast.Constant(a.value + b.value)
                case ast.Sub() if a.value >= b.value:
                    return ast.Constant(a.value - b.value)
                case ast.Mult():
                    return ast.Constant(a.value * b.value)
        return ast.BinOp(a, n.op, b)


def _is(n, value) -> bool:
    return isinstance(n, ast.Constant) and n.value == value


def _without_unused(lines: list[str], text: str) -> list[str]:
    """Without declarations and gates that nothing needs any more, if something needed them before."""
    before = parse(text)
    used_before = _used(before, at_own_step=True)  # what was only carried on is what the cell is about
    while True:
        parsed = parse("\n".join(lines))
        used = _used(parsed)
        gone = {d.line.source for d in parsed.declarations.values()
                if d.name not in used and d.name in used_before and d.kind != "axis"}
        for d in parsed.definitions:
            names = [t.value.id if isinstance(t, ast.Subscript) else t.id for t in d.targets]
            if all(n not in used and n in used_before for n in names):
                gone.add(d.line.source)
        if not gone:
            return lines
        lines = [line for line in lines if line not in gone]


def _used(parsed, at_own_step: bool = False) -> set[str]:
    """Names read by equations other than their own; at their own step alone, or at any."""
    found = set()
    for d in parsed.definitions:
        own = {t.value.id if isinstance(t, ast.Subscript) else t.id for t in d.targets}
        moved = {id(n.value) for n in ast.walk(d.expression) if at_own_step and isinstance(n, ast.Subscript) and any(
            isinstance(m, ast.BinOp | ast.Constant) for m in ast.walk(n.slice))}
        found |= {n.id for n in ast.walk(d.expression) if isinstance(n, ast.Name) and id(n) not in moved} - own
    return found
