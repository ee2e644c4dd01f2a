"""Text to lines, safely: each side of `=` is one Python expression of an allow-listed kind. Nothing is evaluated.

The result is plain data: definitions, declarations and functions, each knowing its place in the author's text, so
that every later error can point at it.
"""

from __future__ import annotations

import ast
import keyword
import operator
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .errors import CellError

LONGEST_TEXT = 200_000
LONGEST_LINE = 20_000
MOST_LINES = 2_000
DEEPEST = 40
LARGEST_EXPONENT = 10**6
LARGEST = 1e300

KINDS = ("axis", "input", "parameter", "const", "noise", "bernoulli")
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%", ast.Pow: "**", ast.MatMult: "@"}
ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
              ast.Mod: operator.mod, ast.Pow: operator.pow}
RELATIONS = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}

# What people write from habit: what a paper prints and its ASCII, a word of Python's and what stands for it here.
SPELLINGS = {"−–—": "-", "⊙∘·⋅×∗": "*", "⊗": "outer(a, b)", "÷∕": "/", "≤": "<=", "≥": ">=", "≠": "!=", "²": "**2",
             "³": "**3", "ᵀ⊤": ".T", "√": "sqrt", "∑Σ": "sum_t", "σ": "sigmoid", "λ": "lambda_", "\u00a0": " "}
WORDS = {
    **dict.fromkeys(("if", "else"), "For `x if c else y` write `where(c, x, y)`."),
    "and": "For both of two conditions write their product: `(a < b) * (b < c)`.",
    "or": "For either of two conditions write `maximum(a < b, b < c)`.",
    "not": "For the opposite of a condition write the other comparison, or `1 - c`.",
    **dict.fromkeys(("for", "in"), "For a sum over an index write `sum_j(...)`; as a name, append an underscore."),
    "True": "Write `1`.", "False": "Write `0`.", "None": "Leave it out.",
}
NO_OPERATOR = re.compile(r"\w\s+(?=\w)|[\])]\s*(?=\w)|\b\d+(?=[A-Za-z_])(?![eE][-+\d])")  # linear on any text


@dataclass(frozen=True)
class Line:
    """One line of the author's text; `expression` nodes carry columns into `source`."""

    source: str
    number: int

    def error(self, fact: str, at: ast.AST | int | None = None, remedy: str | None = None) -> CellError:
        column = at if isinstance(at, int) else getattr(at, "col_offset", None)
        return CellError(fact, self.source, self.number, column or _indent(self.source), remedy)


@dataclass(frozen=True)
class Definition:
    """`name[...] = expression`, or `a[t], b[t] = call(...)`: targets are Name or Subscript nodes."""

    targets: tuple[ast.expr, ...]
    expression: ast.expr
    line: Line


@dataclass(frozen=True)
class Declaration:
    """`name: kind`, `name: kind(shape)` or `name: (shape)`; the shape's entries are names or whole numbers."""

    name: str
    kind: str
    shape: tuple[str | int, ...] | None
    probability: float | None
    line: Line


@dataclass(frozen=True)
class Function:
    """`swish(v) = v * sigmoid(v)`"""

    name: str
    parameters: tuple[str, ...]
    expression: ast.expr
    line: Line


@dataclass(frozen=True)
class Parsed:
    definitions: tuple[Definition, ...]
    declarations: dict[str, Declaration]
    functions: dict[str, Function]
    names: frozenset[str] = field(default=frozenset())


def parse(text: str) -> Parsed:
    """The lines of a cell's text, in the author's order."""
    found = parsed(source_lines(text))
    if not found.definitions:
        raise CellError("The text defines nothing.", remedy="Write at least one line, like `h[t] = tanh(W @ x[t])`.")
    return found


def parsed(lines: Iterable[Line]) -> Parsed:
    """What these lines define and declare."""
    definitions: list[Definition] = []
    declarations: dict[str, Declaration] = {}
    functions: dict[str, Function] = {}
    for line in lines:
        statement = line.source.split("#", 1)[0]
        if not statement.strip():
            continue
        if len(definitions) >= MOST_LINES:
            raise line.error(f"The text has more than {MOST_LINES} equations.", None,
                             "Write repeated equations once, over an index: `l: axis`.")
        left, equals, right = _split_once(statement)
        if not equals:
            declared = _declaration(line, statement)
            if declared.name in declarations:
                raise line.error(f"`{declared.name}` is declared twice.", _indent(statement), "Keep one declaration.")
            declarations[declared.name] = declared
            continue
        target = _expression(line, left, 0)
        body = _expression(line, right, len(left) + 1)
        if isinstance(target, ast.Call):
            function = _function(line, target, body)
            if function.name in functions:
                raise line.error(f"The function `{function.name}` is defined twice.", target, "Keep one definition.")
            functions[function.name] = function
            continue
        targets = tuple(target.elts) if isinstance(target, ast.Tuple) else (target,)
        if not targets:
            raise line.error("No name stands on the left side of `=`.", target, "Write `name[...] = expression`.")
        for t in targets:
            name = t.value if isinstance(t, ast.Subscript) else t
            if not isinstance(name, ast.Name):
                raise line.error("The left side of `=` must be a name, like `h[t]` or `c`.", t,
                                 "Write `name[...] = expression`.")
        definitions.append(Definition(targets, body, line))
    return Parsed(tuple(definitions), declarations, functions)


def source_lines(text: str) -> Iterator[Line]:
    """Lines of the text; one with open brackets goes on on the next."""
    if not isinstance(text, str):
        raise CellError(f"A cell's text is a string, not {type(text).__name__}.")
    if len(text) > LONGEST_TEXT:
        raise CellError(f"The text has {len(text)} characters; a cell has at most {LONGEST_TEXT}.")
    pending, number, depth = "", 0, 0
    for k, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        raw = raw.replace("\t", " ").rstrip()
        if not raw and not pending:
            yield Line("", k)
            continue
        body = raw.split("#", 1)[0]
        if not pending:
            number = k
            source = raw
        else:
            source = pending.split("#", 1)[0].rstrip() + " " + raw.strip()
        depth += sum(body.count(c) for c in "([") - sum(body.count(c) for c in ")]")
        if depth > 0:
            pending = source
            continue
        yield Line(source, number)
        pending, depth = "", 0
    if pending:
        yield Line(pending, number)


def _indent(statement: str) -> int:
    return len(statement) - len(statement.lstrip())


def _split_once(statement: str) -> tuple[str, bool, str]:
    """Cut at the one `=` that defines: outside brackets, and not part of ==, <=, >=, !=."""
    depth = 0
    for k, c in enumerate(statement):
        depth += (c in "([") - (c in ")]")
        if c == "=" and depth == 0 and statement[k + 1:k + 2] != "=" and statement[k - 1:k] not in list("=<>!"):
            return statement[:k], True, statement[k + 1:]
    return statement, False, ""


def _expression(line: Line, text: str, start: int) -> ast.expr:
    """Parse one side of a line; columns count from the start of the line."""
    if len(line.source) > LONGEST_LINE:
        raise CellError(f"Line {line.number} has {len(line.source)} characters; at most {LONGEST_LINE} are read.",
                        remedy="Name a part of it in a line of its own.")
    for k, c in enumerate(text):
        if ord(c) > 126 or ord(c) < 32:
            called = unicodedata.name(c, "unnamed").lower()
            raise line.error(f"The character {c!r} ({called}) has no meaning here.", start + k, _spelling(c, called))
        if c in "'\"\\;{}$?!`~&|^:" and not (c == "!" and text[k + 1:k + 2] == "="):
            raise line.error(f"`{c}` has no meaning in an expression.", start + k,
                             "An expression has names, numbers, + - * / @ % **, comparisons, calls and brackets.")
    if re.search(rf"[-+*/%@(\[]{{{DEEPEST}}}", text.replace(" ", "")) or _depth(text) > DEEPEST:
        raise line.error(f"The expression nests deeper than {DEEPEST} levels.", start + _indent(text),
                         "Name a part of it in a line of its own.")
    if not text.strip():
        raise line.error("An expression is missing here.", start, "Write `name = expression`.")
    for word in re.finditer(r"[A-Za-z_]\w*", text):
        if keyword.iskeyword(word.group()):
            raise line.error(f"`{word.group()}` is a word of Python's own and has no meaning here.",
                             start + word.start(), WORDS.get(word.group(), f"As a name write `{word.group()}_`."))
    lead = _indent(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        gap = NO_OPERATOR.search(text)
        if gap:
            follows = re.findall(r"\w+", text[gap.end():])[0][:40]
            raise line.error(f"This is not an expression: no operator stands before `{follows}`.",
                             start + gap.end(), "Write `@` between a matrix and a vector, `*` between numbers or "
                             "component by component: `W @ x[t]`, `z[t] * h[t-1]`.") from None
        at = start + lead + max((error.offset or 1) - 1, 0)
        raise line.error(f"This is not an expression: {error.msg}.", min(at, len(line.source)),
                         "Complete it: operators stand between two operands, brackets come in pairs.") from None
    except (RecursionError, MemoryError, ValueError):
        raise line.error("The expression is too deep to read.", start + lead,
                         "Name a part of it in a line of its own.") from None
    nodes = [*ast.walk(tree)]
    for n in nodes:
        if hasattr(n, "col_offset"):
            n.col_offset += start + lead
            n.end_col_offset += start + lead
    for n in nodes:
        _allow(line, n)
    _finite(line, nodes)
    return tree


def _spelling(c: str, called: str) -> str:
    """How a character that is not ASCII is written here."""
    ascii = next((ascii for characters, ascii in SPELLINGS.items() if c in characters), None)
    if ascii is None and called.startswith("greek"):
        ascii = called.split(" with ")[0].split()[-1]
    return f"Write `{ascii}`." if ascii else "Names are ASCII: write `alpha`."


def _finite(line: Line, nodes: list[ast.AST]) -> None:
    """Numbers that meet numbers stay numbers: `1/0` and `2**5000` are slips."""
    values: dict[ast.AST, float] = {}
    for n in reversed(nodes):  # operands before what is made of them
        match n:
            case ast.Constant():
                values[n] = float(n.value)
            case ast.UnaryOp() if n.operand in values:
                values[n] = -values[n.operand] if isinstance(n.op, ast.USub) else values[n.operand]
            case ast.BinOp(op=ast.Div() | ast.Mod()) if values.get(n.right) == 0:
                raise line.error("A division by zero stands here.", n.right, "Divide by something else.")
            case ast.BinOp() if n.left in values and n.right in values and type(n.op) in ARITHMETIC:
                try:
                    values[n] = ARITHMETIC[type(n.op)](values[n.left], values[n.right])
                except (OverflowError, ZeroDivisionError):
                    raise _no_number(line, n) from None
                if isinstance(values[n], complex) or not abs(values[n]) <= LARGEST:
                    raise _no_number(line, n)


def _no_number(line: Line, n: ast.expr) -> CellError:
    shown = line.source[n.col_offset:n.end_col_offset]
    return line.error(f"`{shown[:40]}` is not a number that can stand here.", n,
                      "Numbers are real and below 1e300, like `2`, `0.5` or `1e-3`.")


def _depth(text: str) -> int:
    deepest = depth = 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        deepest = max(deepest, depth)
    return deepest


def _allow(line: Line, n: ast.AST) -> None:
    """Refuse every kind of syntax that is not on the list."""
    match n:
        case ast.Name() | ast.expr_context() | ast.operator() | ast.unaryop() | ast.cmpop() | ast.keyword():
            if isinstance(n, ast.operator) and type(n) not in OPERATORS:
                raise line.error("This operator has no meaning here.", None, f"Use {' '.join(OPERATORS.values())}.")
            if isinstance(n, ast.Name) and n.id.lower() == "nan":
                raise line.error(f"`{n.id}` is no number that can stand here.", n,
                                 "Numbers are real, like `0.5`, `pi` or `inf`; leave a missing value to the data.")
            if isinstance(n, ast.Name) and "__" in n.id:
                raise line.error(f"`{n.id}` has two underscores in a row.", n, "Rename it.")
        case ast.BinOp(op=ast.Pow()):
            exponent = n.right.operand if isinstance(n.right, ast.UnaryOp) else n.right
            if isinstance(exponent, ast.Constant) and isinstance(exponent.value, (int, float)) and (
                    abs(exponent.value) > LARGEST_EXPONENT):
                raise line.error("The exponent is too large.", n.right,
                                 f"Exponents lie between -{LARGEST_EXPONENT} and {LARGEST_EXPONENT}.")
            if not isinstance(exponent, ast.Constant):
                raise line.error("An exponent must be a number.", n.right,
                                 "For a variable exponent write `exp(b * log(a))`.")
        case ast.BinOp() | ast.Tuple():
            pass
        case ast.UnaryOp(op=ast.USub()) | ast.UnaryOp(op=ast.UAdd()):
            pass
        case ast.Compare():
            if len(n.ops) > 1 or type(n.ops[0]) not in RELATIONS:
                raise line.error("A comparison has two sides and one of < <= > >= == !=.", n,
                                 "For both of two conditions write their product: `(a < b) * (b < c)`.")
        case ast.Constant():
            if type(n.value) not in (int, float) or not abs(n.value) <= LARGEST:
                raise _no_number(line, n)
        case ast.Attribute():
            if n.attr != "T":
                raise line.error(f"`.{n.attr}` has no meaning: the only attribute is `.T`, the transpose.", n,
                                 "Write functions as calls, like `tanh(v)`.")
        case ast.Subscript():
            if not isinstance(n.value, ast.Name):
                raise line.error("Only a name takes an index.", n, "Name the expression in a line of its own.")
        case ast.Call():
            if not isinstance(n.func, ast.Name):
                raise line.error("Only a name can be called.", n, "Call a function by its name, like `tanh(v)`.")
            if any(k.arg is None for k in n.keywords):
                raise line.error("`**` cannot stand here.", n, "List the arguments one by one.")
        case _:
            raise line.error(f"{type(n).__name__} has no meaning in an equation.",
                             n if hasattr(n, "col_offset") else None,
                             "An expression has names, numbers, + - * / @ % **, comparisons, calls and brackets.")


def _declaration(line: Line, statement: str) -> Declaration:
    name, colon, kind = (part.strip() for part in statement.partition(":"))
    column = _indent(statement)
    if not colon:
        raise line.error("The line neither defines nor declares anything.", column,
                         "Write `name = expression` or `name: kind`.")
    if keyword.iskeyword(name):
        raise line.error(f"`{name}` is a word of Python's own and has no meaning here.", column,
                         f"As a name write `{name}_`.")
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or "__" in name:
        raise line.error(f"`{name}` is not a name.", column, "Names are letters, digits and single underscores.")
    match = re.fullmatch(r"([a-z]*)\s*(\((.*)\))?", kind, re.ASCII)
    word = match.group(1) if match else kind
    if not match or word not in ("", *KINDS) or (not word and not match.group(2)):
        raise line.error(f"`{kind}` is not a kind.", statement.index(":") + 2,
                         "Kinds: axis, input, const(shape), noise(shape), bernoulli(shape), or a (shape) alone.")
    entries = [p.strip() for p in (match.group(3) or "").split(",") if p.strip()]
    probability = None
    if word == "bernoulli":
        probability = 0.5
        if entries and re.fullmatch(r"0?\.\d+|1\.0|1|0", entries[-1]):
            probability = float(entries.pop())
    for entry in entries:
        if not re.fullmatch(r"[A-Za-z_]\w*|[1-9]\d{0,6}", entry, re.ASCII):
            raise line.error(f"`{entry}` is not a size.", statement.find(entry),
                             "A shape lists names of variables or whole numbers: `const(h, 3)`.")
    shape = tuple(int(p) if p.isdigit() else p for p in entries) if match.group(2) is not None else None
    return Declaration(name, word or "parameter", shape, probability, line)


def _function(line: Line, target: ast.Call, body: ast.expr) -> Function:
    parameters = []
    for a in target.args:
        if not isinstance(a, ast.Name) or a.id in parameters:
            raise line.error("A function's parameters are different names.", a, "Write `f(v, w) = ...`.")
        parameters.append(a.id)
    if target.keywords or not parameters:
        raise line.error("A function lists its parameters as plain names.", target, "Write `f(v) = ...`.")
    return Function(target.func.id, tuple(parameters), body, line)
