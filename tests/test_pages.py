"""What is printed, where it is printed: LaTeX through pdflatex, pages in a browser. Long: needs programs of the system.

    apt-get install texlive-latex-base texlive-latex-recommended chromium        pytest -m long tests/test_pages.py
"""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
import systems

from autograd_rnn import Cell, zoo
from autograd_rnn.derivation.document import LEVELS
from autograd_rnn.printing.names import ADJOINTS

pytestmark = pytest.mark.long
CELLS = systems.NAMES
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]

# Printed by the page itself, so that a reader's eye is not needed: what a browser made of each formula.
PROBE = """
<script>
const wrong = [];
const box = element => element.getBoundingClientRect();
for (const math of document.querySelectorAll('math')) {
  if (!(math instanceof MathMLElement) || box(math).width < 1 || box(math).height < 5)
    wrong.push('empty ' + math.outerHTML);
  for (const leaf of math.querySelectorAll('mi, mo, mn, mtext'))
    if (/[\\\\}]|.[{]|undefined|NaN/.test(leaf.textContent)) wrong.push('unconverted ' + leaf.textContent);
  if (math.querySelector('merror')) wrong.push('merror');
}
const bold = [...document.querySelectorAll('mi')].filter(e =>
  /[\\u{1D400}-\\u{1D433}\\u{1D6A8}-\\u{1D6E1}]/u.test(e.textContent) || e.getAttribute('mathvariant') === 'bold');
for (const e of bold) if (box(e).width < 3) wrong.push('bold ' + e.outerHTML);
const rows = [...document.querySelectorAll('table')].map(t => [...t.querySelectorAll('tr')].map(r => box(r).top));
for (const tops of rows) if (tops.some((y, k) => k && y <= tops[k - 1])) wrong.push('rows on top of each other');
document.title = JSON.stringify({formulas: document.querySelectorAll('math').length, bold: bold.length,
  lines: rows.flat().length, wrong: wrong.slice(0, 5)});
</script>
"""


@pytest.fixture(scope="module")
def pdflatex():
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")
    return ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "out.tex"]


def complaints(pdflatex, folder, tex: str) -> list[str]:
    """Errors and overfull lines."""
    (folder / "out.tex").write_text(tex, encoding="utf-8")
    done = subprocess.run(pdflatex, cwd=folder, capture_output=True, text=True, errors="replace")
    return [line for line in done.stdout.splitlines() if line.startswith(("!", "Overfull"))] + (
        ["no output"] if done.returncode else [])


def pages(folder) -> int:
    log = (folder / "out.log").read_text(errors="replace")
    return int(re.search(r"Output written on out.pdf \((\d+) page", log)[1])


def test_a_wrong_document_is_seen(pdflatex, tmp_path):
    tex = zoo["rnn"].derivation().latex(level="summary")
    assert not complaints(pdflatex, tmp_path, tex)
    assert complaints(pdflatex, tmp_path, tex.replace(r"\odot", r"\nosuch"))
    assert complaints(pdflatex, tmp_path, tex.replace("&= ", "&= " + "x + " * 60, 1))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("level", LEVELS)
def test_latex_compiles_without_errors_or_overfull_lines(name, level, pdflatex, tmp_path):
    cell = zoo[name] if name in zoo else systems.cell(name)
    for notation in ADJOINTS:
        assert not complaints(pdflatex, tmp_path, cell.derivation().latex(level=level, notation=notation))


def test_the_adjoint_of_the_lstm_fits_one_page(pdflatex, tmp_path):
    assert not complaints(pdflatex, tmp_path, zoo["lstm"].derivation().latex(level="summary"))
    assert pages(tmp_path) == 1


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    return BROWSER


def seen(browser, folder, html: str) -> dict:
    """What the probe found in the page, as the browser drew it."""
    page = folder / "page.html"
    page.write_text(html.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    done = subprocess.run([browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{page}"],
                          capture_output=True, text=True, timeout=120)
    return json.loads(unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1]))


def test_a_wrong_page_is_seen(browser, tmp_path):
    html = zoo["rnn"].derivation().html()
    assert not seen(browser, tmp_path, html)["wrong"]
    assert seen(browser, tmp_path, html.replace("<mi>h</mi>", "<mi>\\undefined{h}</mi>", 1))["wrong"]
    assert seen(browser, tmp_path, html.replace("</style>", "math { display: none; }</style>"))["wrong"]


@pytest.mark.parametrize("name", CELLS)
def test_a_browser_draws_every_formula(name, browser, tmp_path):
    derivation = (zoo[name] if name in zoo else systems.cell(name)).derivation()
    found = seen(browser, tmp_path, derivation.html())
    lines = sum(len(item.rights) for s in derivation.sections() for item in s.items if hasattr(item, "rights"))
    assert not found["wrong"] and found["formulas"] > lines and found["lines"] >= lines
    assert found["bold"] > 0 or not derivation.recurrences


def test_the_page_is_readable_without_scripts_and_without_a_network():
    html = Cell("h[t] = tanh(U @ h[t-1] + x[t])").derivation().html()
    assert "<script" not in html and "src=" not in html and "href=" not in html and "url(" not in html
