"""What a paper needs of a result: tables as LaTeX and CSV, figures as PDF with their data, BibTeX.

Owns escaping for LaTeX: text from outside is set as text, and cannot begin a command. The same
result gives the same bytes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fastslow.core.text import visible
from fastslow.core.types import Json
from fastslow.results.render.drawing import Drawing
from fastslow.results.render.figure_data import HEADER
from fastslow.results.render.layout import Table, Text, footnoted, is_figure_like
from fastslow.results.render.writing import csv_text, require_no_run, write_files

BIBLIOGRAPHY = Path(__file__).parent / "refs.bib"
WIDE = 5
"""Columns from which on a table is shrunk to the width of the text."""
MAX_CELL = 300
"""Characters of a cell in LaTeX; the CSV has all of it."""
SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{'"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}"},
    # behind a line's end, these two would belong to the command that ends it
    **{"[": "{[}", "]": "{]}", "*": "{*}"},
    **{"●": r"\ensuremath{\bullet}", "○": r"\ensuremath{\circ}", "±": r"\ensuremath{\pm}"},
    **{"▲": r"\ensuremath{\uparrow}", "▼": r"\ensuremath{\downarrow}", "‖": r"\ensuremath{\Vert}"},
    **{"…": r"\ldots{}", "-": "{-}"},
}
"""How LaTeX writes what it would not set as it stands, or join with its neighbour."""
EXAMPLE = r"""% Every table and figure of this folder; needs booktabs, graphicx and textcomp.
\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs,graphicx,textcomp,url}
\begin{document}
"""


def write_paper(
    folder: Path,
    tables: Iterable[Table],
    drawings: Iterable[Drawing],
    configs: Sequence[Mapping[str, Json]],
) -> tuple[Path, ...]:
    """Write tables/, figures/, refs.bib and example.tex, which shows all, into a folder.

    `configs` are the configurations of the runs: they decide which sources are in refs.bib.

    Raises:
        ConfigError: As `require_paper_folder`.
        CheckpointError: It cannot be written.
    """
    require_paper_folder(folder)
    files, body = dict[str, str](), list[str]()
    tables = [table for table in tables if table.rows]
    for number, table in enumerate(tables, start=1):
        stem = f"tables/{number:02}-{slug(table.title)}"
        files[f"{stem}.tex"], files[f"{stem}.csv"] = latex_table(table), table_csv(table)
        body.append(rf"\input{{{stem}}}")
    pictures = dict[str, bytes]()
    for drawing in drawings:
        stem = f"figures/{drawing.name}"
        pictures[f"{stem}.pdf"], rows = drawing.for_paper()
        files[f"{stem}.csv"] = csv_text(HEADER, rows)
        caption = latex(f"{drawing.title}. {drawing.caption}")
        picture = rf"\centering\includegraphics[width=0.6\linewidth]{{{stem}.pdf}}"
        body.append(f"\\begin{{figure}}\n{picture}\n\\caption{{{caption}}}\n\\end{{figure}}")
    files["refs.bib"] = "\n".join(sources(tables, configs)) + "\n"
    body += ["\\nocite{*}", "\\bibliographystyle{plain}", "\\bibliography{refs}"]
    files["example.tex"] = EXAMPLE + "\n\\clearpage\n".join(body) + "\n\\end{document}\n"
    return write_files(folder, {n: text.encode() for n, text in files.items()} | pictures)


def require_paper_folder(folder: Path) -> None:
    """`ConfigError` for a run folder, whose own figures would lie among those for a paper."""
    advice = "Its figures would be mixed with these; give another folder."
    require_no_run("--paper", folder, advice)


def slug(title: str) -> str:
    """A title as part of a file's name: at most 48 small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:48].strip("-") or "table"


def latex(text: str) -> str:
    """Untrusted text as LaTeX that sets it, on one line."""
    return "".join(SPECIAL.get(char, char) for char in visible(text))


def latex_table(table: Table) -> str:
    """A floating table in the style of booktabs, with its note in the caption."""
    table = footnoted(table)
    sample = table.rows[0]
    columns = "l" + "".join("r" if is_figure_like(cell) else "l" for cell in sample[1:])
    opening, closing = (r"\resizebox{\linewidth}{!}{%", "}") if len(columns) >= WIDE else ("", "")
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{latex(f'{table.title}. {table.note}'.strip())}}}",
        rf"\label{{tab:{slug(table.title)}}}",
        opening,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(latex, table.header)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        rf"\end{{tabular}}{closing}",
        r"\end{table}",
    ]
    return "\n".join(filter(None, lines)) + "\n"


def _cell(cell: Text) -> str:
    cut = cell.text if len(cell.text) <= MAX_CELL else cell.text[: MAX_CELL - 1] + "…"
    if cell.is_code:
        return rf"\texttt{{{latex(cut)}}}"
    return rf"\textbf{{{latex(cut)}}}" if cell.style == "strong" else latex(cut)


def table_csv(table: Table) -> str:
    """A table as CSV."""
    rows = ([cell.text for cell in row] for row in footnoted(table).rows)
    return csv_text(table.header, rows)


def sources(tables: Iterable[Table], configs: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    """Entries of refs.bib that these tables quote by number, or that these configurations use."""
    cells = (cell.text for table in tables for row in table.rows for cell in row)
    quoted = " ".join((*cells, *(table.note for table in tables)))
    used = [json.dumps(config, separators=(",", ":")) for config in configs]
    for line in BIBLIOGRAPHY.read_text(encoding="utf-8").splitlines():
        entry = re.fullmatch(r"(@.*), usedby = \{(.*)\}\}", line)
        if entry is None:
            continue
        number = re.search(r"eprint = \{(\S+)\}", line)
        pieces = filter(None, entry[2].split("|"))
        is_quoted = number is not None and number[1] in quoted
        if is_quoted or any(piece in text for piece in pieces for text in used):
            yield f"{entry[1]}}}"
