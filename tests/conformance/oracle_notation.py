"""Lines of text -> equations with calls and functions written out, for the oracle: Python's own parser and little else.

    Text(text, cell=...).equations -> [(name, its positions, the right side)]
"""

import ast
import copy
import re
from functools import cache

REDUCTION = re.compile(r"(sum|mean|max|logsumexp|softmax|cumsum)_(\w+)$")


def expression(text):
    return ast.parse(text.strip(), mode="eval").body


class Replace(ast.NodeTransformer):
    """Names by expressions."""

    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        return copy.deepcopy(self.names.get(node.id, node))

    def visit_Call(self, node):  # the name of what is called stays
        return ast.Call(node.func, [self.visit(a) for a in node.args], node.keywords)


class Expand(ast.NodeTransformer):
    """swish(v) = v * sigmoid(v): a call of it is its right side."""

    def __init__(self, functions):
        self.functions = functions

    def visit_Call(self, node):
        node = ast.Call(node.func, [self.visit(a) for a in node.args], node.keywords)
        if node.func.id not in self.functions:
            return node
        names, body = self.functions[node.func.id]
        return self.visit(Replace(dict(zip(names, node.args, strict=True))).visit(copy.deepcopy(body)))


def subscript(node):
    """The name and the positions of v or v[...]."""
    if isinstance(node, ast.Name):
        return node.id, []
    slots = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return node.value.id, slots


def reads(node):
    return [n for n in ast.walk(node) if isinstance(n, ast.Subscript)]


@cache
def names(node):
    """The names in an expression."""
    return frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name))


@cache
def index_of(slot):
    """The name in a position: t of t, t - 1, T + 1; none in 0 and 1."""
    names = [n.id for n in ast.walk(slot) if isinstance(n, ast.Name)]
    return names[0] if names else None


def shift(slot):
    """k of t + k."""
    if isinstance(slot, ast.BinOp):
        return slot.right.value if isinstance(slot.op, ast.Add) else -slot.right.value
    return 0


def at(name, slots):
    """name[slots] as an expression."""
    return ast.Subscript(ast.Name(name), ast.Tuple(list(slots))) if slots else ast.Name(name)


def moved(index, by):
    op = ast.Add() if by > 0 else ast.Sub()
    return ast.BinOp(ast.Name(index), op, ast.Constant(abs(by))) if by else ast.Name(index)


class Callee(ast.NodeTransformer):
    """What an expression of a called cell is among the caller's: its names, its index, its direction."""

    def __init__(self, left, cell, passed, axes):
        targets = [subscript(node) for node in left]
        self.cell, self.passed, self.first = cell, passed, targets[0][0]
        self.states = [name for name in passed if name in cell.names]
        returned = self.states or [cell.equations[-1][0]]
        self.names = dict(zip(returned, [name for name, _ in targets], strict=True))
        self.own = [index_of(slot) for slot in targets[0][1]]
        self.layers = [i for i in self.own if i in axes]  # a call for each layer: weights for each
        mine = cell.slots[returned[0]]
        time = "t" if "t" in mine else mine[0]
        moves = [slot for name in self.states for r in reads(passed[name]) for slot in subscript(r)[1] if shift(slot)]
        self.back = any(shift(slot) > 0 for slot in moves)
        self.renamed = {time: index_of(moves[0]) if moves else "t" if "t" in self.own else self.own[0]}
        self.time, self.along = time, self.renamed[time]
        for name, value in passed.items():  # its other indices are those that stand in the same place of what is passed
            for index, slot in zip(cell.slots.get(name, []), subscript(reads(value)[0])[1] if reads(value) else []):
                self.renamed.setdefault(index, index_of(slot))

    def name(self, name):
        return self.names.get(name, f"{self.first}_{name}")

    def position(self, slot, index):
        """t + k is the caller's index moved by k; where the callee runs backward by -k, and 0 is T + 1."""
        named, k = index_of(slot), shift(slot)
        caller = self.renamed.get(index, index)
        end = caller.upper()
        if not self.back or index != self.time:
            return slot if named is None else moved(end if named.isupper() else caller, k)
        if named is None:
            return moved(end, 1 - slot.value)
        return ast.Constant(1 - k) if named.isupper() else moved(caller, -k)

    def place(self, name, slots):
        """Positions of a callee's variable: its own, and those that the call has beside them (layers, say)."""
        indices = self.cell.slots.get(name, [])
        found = {self.renamed.get(i, i): self.position(s, i) for i, s in zip(indices, slots, strict=True)}
        moving = bool(slots) and (name in self.cell.names or name in self.passed)
        beside = {i: ast.Name(i) for i in self.own if i != self.along and (moving or i in self.layers)}
        found = {i: (beside | found)[i] for i in self.own if i in beside | found} | found
        return list(found.values())

    def visit_Subscript(self, node):
        name, slots = subscript(node)
        moves = [shift(s) for s, i in zip(slots, self.cell.slots[name], strict=True) if i == self.time]
        if name in self.states and moves == [-1]:
            return copy.deepcopy(self.passed[name])
        return at(self.name(name), self.place(name, slots))

    def visit_Name(self, node):
        name = node.id
        if name.lower() in self.cell.indices and name.isupper():
            return ast.Name(self.renamed.get(name.lower(), name.lower()).upper())
        if name == self.time and self.back:
            return expression(f"{self.along.upper()} + 1 - {self.along}")
        if name in self.cell.indices:
            return ast.Name(self.renamed.get(name, name))
        if name in self.passed:
            return copy.deepcopy(self.passed[name])
        return at(self.name(name), self.place(name, []))

    def visit_Call(self, node):
        function, found = node.func.id, REDUCTION.match(node.func.id)
        if found and found[2] in self.renamed:
            function = f"{found[1]}_{self.renamed[found[2]]}"
        return ast.Call(ast.Name(function), [self.visit(a) for a in node.args], [])

    def equations(self):
        for name, value in self.passed.items():
            if name in self.cell.slots and name not in self.states and self.cell.slots[name]:
                yield self.name(name), self.place(name, [ast.Name(i) for i in self.cell.slots[name]]), value
        for name, slots, right in self.cell.equations:
            yield self.name(name), self.place(name, slots), self.visit(copy.deepcopy(right))


class Text:
    """The equations of a text, calls and functions written out. `others`: cells called in it, as texts or Texts;
    primitives of one's own, as functions of tensors."""

    def __init__(self, text, **others):
        self.cells = {n: Text(c) if isinstance(c, str) else c for n, c in others.items() if not callable(c)}
        self.primitives = {n: c for n, c in others.items() if callable(c)}
        for cell in self.cells.values():
            self.primitives |= cell.primitives
        self.declared, functions, lines = {}, {}, []
        for line in text.splitlines():
            line = line.split("#")[0].strip()
            sides = re.split(r"(?<![=<>!])=(?!=)", line, maxsplit=1)
            if len(sides) == 1 and line:
                name, kind = line.split(":", 1)
                self.declared[name.strip()] = kind.strip()
            elif len(sides) == 2:
                left, right = expression(sides[0]), expression(sides[1])
                if isinstance(left, ast.Call):
                    functions[left.func.id] = [a.id for a in left.args], right
                else:
                    lines.append((left.elts if isinstance(left, ast.Tuple) else [left], right))
        self.axes = {n for n, kind in self.declared.items() if kind == "axis"}
        self.equations = []  # (name, its positions, the right side)
        for left, right in lines:
            right = Expand(functions).visit(right)
            if isinstance(right, ast.Call) and right.func.id in self.cells:
                callee, passed = self.cells[right.func.id], {k.arg: k.value for k in right.keywords}
                self.equations += Callee(left, callee, passed, self.axes).equations()
                self.axes |= callee.axes
            else:
                self.equations.append((*subscript(left[0]), right))
        self.names = {name for name, _, _ in self.equations}
        slots = {}  # name -> the index that each of its positions runs over
        for name, places in self.places():
            known = slots.setdefault(name, [None] * len(places))
            for n, slot in enumerate(places):
                index = index_of(slot)
                known[n] = known[n] or (index and (index.lower() if index.isupper() else index))
        self.slots = slots
        self.indices = {i for known in slots.values() for i in known if i} | self.axes

    def places(self):
        for name, slots, right in self.equations:
            yield name, slots
            for read in reads(right):
                yield subscript(read)
