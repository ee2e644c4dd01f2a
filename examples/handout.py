"""A LaTeX hand-out: the LSTM forward and backward on one page, its forget gate step by step, and an exercise."""

import sys
from pathlib import Path

import autograd_rnn as ar

lstm = ar.zoo["lstm"]
derivation = lstm.derivation()
page = rf"""\documentclass{{article}}
\usepackage[a4paper,margin=20mm]{{geometry}}
\usepackage{{amsmath,amssymb}}
\allowdisplaybreaks
\begin{{document}}
\section*{{The LSTM}}
{lstm.latex()}
{derivation.latex(level="summary", notation="delta", document=False)}
\section*{{Where the forget gate's gradient comes from}}
{derivation.latex("dh", "dc", "df", "da_f", "dU_f", notation="delta")}
\section*{{Exercise}}
Couple the gates, $f_t = 1 - i_t$. Which of these equations change?
\newpage
\section*{{Solution}}
{ar.compare(lstm, ar.zoo["lstm_coupled"]).latex()}
\end{{document}}
"""
path = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "handout.tex"
path.write_text(page, encoding="utf-8")
print(f"wrote {path}: pdflatex {path.name}")
