"""``report.html``: one page for whoever acts on the number.

`page` puts the sections together and writes the file; `number` is the number and what it is, `drawings` the
figures, `tables` the counts, `small_print` how labels are made and what was set. A section is a function of
`facts.Facts` that returns HTML, empty where it has nothing to say.
"""

from napari_rbcflow.session.report.facts import Facts
from napari_rbcflow.session.report.page import render, write_report

__all__ = ["Facts", "render", "write_report"]
