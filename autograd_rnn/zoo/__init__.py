"""The cells of the literature, each as text with its citation: `zoo["lstm"]`, `list(zoo)`.

An entry is text and metadata; a variant is a substitution on its base. One family a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ..cell import Cell
from ..errors import CellError
from ..init import Rule
from . import clockwork, generative, grid, gru, highway, lstm, lstm1997, mut, odyssey, stacked, translation, vanilla


@dataclass(frozen=True)
class Entry:
    """A cell of the literature: its text (or a base and the changes to it), where it is from, what to know."""

    citation: str
    text: str | None = None
    notes: str = ""
    base: str | None = None
    changes: dict[str, str | float] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)


class Zoo(Mapping):
    """Name -> Cell; `zoo.entry(name)` has the citation and the notes.

    >>> zoo["rnn"]
    <Cell rnn: h from x>
    >>> zoo.entry("rnn").citation
    'Elman, Finding structure in time, Cognitive Science 14, 1990'
    """

    def __init__(self, *families: Mapping[str, Any]):
        self._entries = {name: Entry(**facts) for family in families for name, facts in family.items()}
        self._cells: dict[str, Cell] = {}

    def entry(self, name: str) -> Entry:
        if name not in self._entries:
            near = get_close_matches(name, self._entries, 1)
            raise CellError(f"The zoo has no `{name[:40]}`.", remedy=(f"Did you mean `{near[0]}`? " if near else "")
                            + "It has: " + ", ".join(self._entries) + ".")
        return self._entries[name]

    def named(self, name: str) -> Cell:
        """The cell of this name; where there is none, a CellError says which there are."""
        self.entry(name)
        return self[name]

    def __getitem__(self, name: str) -> Cell:
        if name not in self._entries:
            raise KeyError(f"the zoo has no {name!r}; it has {', '.join(self._entries)}")
        if name not in self._cells:
            entry = self._entries[name]
            if entry.text is not None:
                cell = Cell(entry.text, name)
            else:
                cell = self[entry.base or name].substitute(**entry.changes)
                cell.name = name
            self._cells[name] = cell.initialised(**entry.rules)
        return self._cells[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


FAMILIES = (vanilla, lstm1997, lstm, odyssey, gru, mut, clockwork, highway, stacked, grid, translation,
            generative)
zoo = Zoo(*(family.CELLS for family in FAMILIES))
