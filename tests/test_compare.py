"""Comparing two cells: what differs is told, nothing else, in three languages."""

import xml.etree.ElementTree as ET

import pytest
import systems
from test_printing import balanced

import autograd_rnn as ar
from autograd_rnn import Cell, CellError, zoo

PAIRS = [("lstm", "lstm_coupled"), ("lstm", "lstm_peephole"), ("gru", "gru_reset_after"), ("rnn", "gru"),
         ("vanilla", "charlm"), ("two_layers", "depth_gated"), ("grid_lstm_tied", "grid_lstm"), ("bahdanau", "xu"),
         ("last_loss", "lstm"), ("vrnn", "storn")]


def cell_of(name: str) -> Cell:
    return zoo[name] if name in zoo else systems.cell(name)


def names(differences) -> list[str]:
    return [d.name for d in differences]


def markup(html: str) -> ET.Element:
    return ET.fromstring(f"<div>{html}</div>")


def test_the_coupled_lstm_differs_in_its_forget_gate():
    found = ar.compare(zoo["lstm"], zoo["lstm_coupled"])
    assert names(found.forward) == ["a_f[t]", "f[t]"]
    assert names(found.backward) == ["dh[t]", "da_f[t]", "di[t]", "dW_f", "dU_f", "db_f", "dx[t]", "dh[0]"]
    text = found.text()
    assert "lstm          f[t] = σ(a_f[t])\nlstm_coupled  f[t] = 1 - i[t]\n" in text
    assert "lstm          di[t] = dc[t] ⊙ g[t]\nlstm_coupled  di[t] = -df[t] + dc[t] ⊙ g[t]\n" in text
    assert "lstm_coupled  -" in text and "dc[t] = " not in text
    assert r"\mathrm{d}i_{t} &= -\mathrm{d}f_{t} + " in found.latex() and "lstm\\_coupled" in found.latex()


def test_the_two_grus_differ_in_where_they_reset():
    found = ar.compare(zoo["gru"], zoo["gru_reset_after"])
    assert names(found.forward) == ["a_n[t]", "h[t]"]
    assert names(found.backward)[-1] == "db_Rn" and found.backward[-1].first is None
    assert "gru_reset_after  dU_n = Σ_t (da_n[t] ⊙ r[t]) h[t-1]ᵀ" in found.text()


@pytest.mark.parametrize("name", ["lstm", "gru", "two_layers", "bahdanau"])
def test_a_cell_and_itself_are_the_same(name):
    found = ar.compare(cell_of(name), Cell(cell_of(name).text, "again"))
    assert found.same and found.forward == found.backward == ()
    assert found.text() == "Forward\n-------\nthe same\n\nBackward\n--------\nthe same\n"
    assert found.latex() == "the same" and found._repr_html_() == "<p>the same</p>"


def test_cells_of_the_zoo_go_by_their_names():
    assert ar.compare("lstm", zoo["lstm_coupled"]).text() == ar.compare(zoo["lstm"], "lstm_coupled").text()


@pytest.mark.parametrize(("other", "fact"), [("lstn", "Did you mean `lstm`"), ("h[t] = x[t]", "The zoo has no"),
                                             (7, "not int"), (None, "not NoneType")])
def test_what_is_no_cell_is_refused(other, fact):
    with pytest.raises(CellError) as e:
        ar.compare(zoo["rnn"], other)
    assert fact in str(e.value)


def test_what_only_the_loss_changes_is_backward():
    text = systems.TEXTS["last_loss"]
    found = ar.compare(Cell(text), Cell(text.replace("h[T] + c, k)", "h[T] + c, k) + sum_t(sum(h[t]**2))")))
    assert names(found.forward) == ["L"] and "dh[t]" in names(found.backward) and "dU" not in names(found.backward)
    assert found.text().startswith("Forward\n-------\nfirst   L = ")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_form_is_well_formed(first, second):
    found = ar.compare(cell_of(first), cell_of(second))
    text, tex = found.text(), found.latex()
    assert not found.same and text == str(found)
    assert "None" not in text and "\\" not in text and "object at" not in text
    assert balanced(tex) and tex.count(r"\begin{align*}") == tex.count(r"\end{align*}") == 2
    assert len(markup(found._repr_html_()).findall("table")) == 2
    told = [d.name for d in (*found.forward, *found.backward)]
    assert len(text.split("\n\n")) == len(told) + (not found.forward) + (not found.backward)
    for d in (*found.forward, *found.backward):
        assert (d.first is None or d.second is None or d.first.value is not d.second.value) and d.first is not d.second


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a & b", '"><img src=x>', r"\input{/etc/passwd}", "%#1"])
def test_hostile_names_are_escaped(name):
    found = ar.compare(Cell("h[t] = tanh(U @ h[t-1] + x[t])", name=name), zoo["rnn"])
    shown = markup(found._repr_html_())
    assert shown.find("h3").text == name and shown.find(".//script") is None and shown.find(".//img") is None
    assert balanced(found.latex().replace(r"\textbackslash{}", "").replace(r"\{", "").replace(r"\}", ""))
    assert r"\input" not in found.latex()
