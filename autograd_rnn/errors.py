"""The one exception of the library: the fact, the user's own line with a caret, what to do."""


class CellError(ValueError):
    """A cell's text, its sizes or its data are not what they must be.

    `fact` says what is wrong, `line` is the user's own line with `column` (from 0) under the caret, and
    `remedy` says what to do.

    >>> print(CellError("`h` is defined twice.", line="h[t] = x[t]", number=3, column=0, remedy="Keep one."))
    `h` is defined twice.
      line 3: h[t] = x[t]
              ^
    Keep one.
    """

    def __init__(self, fact, line=None, number=None, column=None, remedy=None):
        self.fact, self.line, self.number, self.column, self.remedy = fact, line, number, column, remedy
        super().__init__(fact)

    def __str__(self):
        parts = [self.fact]
        if self.line is not None:
            label = f"  line {self.number}: " if self.number else "  "
            start = 0
            if self.column is not None and self.column > 100:  # keep the caret in sight on a long line
                start = self.column - 60
            shown = ("..." if start else "") + self.line[start:start + 120]
            parts.append(label + shown)
            if self.column is not None:
                parts.append(" " * (len(label) + self.column - start + (3 if start else 0)) + "^")
        if self.remedy:
            parts.append(self.remedy)
        return "\n".join(parts)

    def __reduce__(self):
        return CellError, (self.fact, self.line, self.number, self.column, self.remedy)
