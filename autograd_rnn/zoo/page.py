"""The zoo as a page: `python -m autograd_rnn.zoo.page > docs/zoo.md`. A family a section, an entry a paragraph."""

from __future__ import annotations

from collections.abc import Iterator

from . import FAMILIES, Entry, zoo

HEAD = """# The zoo

Every recurrent cell of the literature that this library knows, in the equations of its paper: `zoo["lstm"]`. An entry
is text and metadata; a variant is a substitution on its base. Where papers and implementations differ both are here,
under names of their own, and the notes say what differs. `zoo.entry("lstm")` has the text, the changes, the citation,
the notes and the rules of `init`. The page is made from the entries: `python -m autograd_rnn.zoo.page`.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *contents(), *(line for family in FAMILIES for line in section(family))])


def contents() -> Iterator[str]:
    """A table: family, names."""
    yield from ("| family | cells |", "|---|---|")
    for family in FAMILIES:
        yield f"| {title(family)} | {' '.join(f'`{name}`' for name in family.CELLS)} |"
    yield ""


def title(family) -> str:
    return (family.__doc__ or "").split("\n")[0].rstrip(".").split(":")[0]


def section(family) -> Iterator[str]:
    yield from (f"## {title(family)}", "", (family.__doc__ or "").strip(), "")
    for name in family.CELLS:
        yield from described(name, zoo.entry(name))


def described(name: str, entry: Entry) -> Iterator[str]:
    """Equations or changes, where they are from, what to know, where parameters start."""
    yield from (f"### {name}", "")
    if entry.text is not None:
        yield from ("```", entry.text.strip(), "```", "")
    elif entry.changes:
        changes = ", ".join(f"`{target} = {change}`" for target, change in entry.changes.items())
        yield from (f"`{entry.base}` with {changes}.", "")
    else:
        yield from (f"`{entry.base}` with other initial parameters.", "")
    yield f"{entry.citation}."
    if entry.notes:
        yield from ("", entry.notes)
    numbers = [f"`{parameter}` at {rule:g}" for parameter, rule in entry.rules.items() if not callable(rule)]
    if numbers:
        yield from ("", f"Starts with {', '.join(numbers)}.")
    yield ""


if __name__ == "__main__":
    print(page(), end="")
