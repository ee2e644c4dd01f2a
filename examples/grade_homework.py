"""A homework graded: the LSTM with peepholes, with the five mistakes that are made most often.

sigmoid' forgotten, the carry of c forgotten, a weight not transposed, a wrong time index, a peephole dropped.
"""

from pathlib import Path

import autograd_rnn as ar

grade = ar.zoo["lstm_peephole"].grade(Path(__file__).with_name("homework.txt").read_text(encoding="utf-8"))
print(grade)
