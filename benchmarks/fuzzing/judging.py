"""What a command may not leave behind: in what it prints, and in the files that it writes.

A case's folder is its own; `OUTSIDE`, next to it, belongs to somebody else. Files there hold
`SECRET`, and the environment holds `TOKEN`: neither may be printed or written anywhere.
"""

import csv
import io
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

OUTSIDE = "outside"
"""Folder next to a case's, which the case may not change."""
SECRET = "qzsecretzq"
TOKEN = "qztokenzq7f3a9c2b"
TOKENS = ("MLFLOW_TRACKING_TOKEN", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")
"""Variables of the environment that hold `TOKEN`."""
LONGEST_LINE = 4000
"""Characters of one line that an error or a command may print."""
LARGEST_FILE = 50_000_000
"""Bytes of a written file that is looked through."""
SHOWN = (".csv", ".html", ".md", ".svg", ".tex")
"""Files that people open: a character in them may act on a terminal, a browser or an editor."""
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARKS = re.compile(r"e[+-]?\d+| \([a-z]+\)$|!$")
"""What may stand behind a number in a cell of ours."""
_FORMULA = re.compile(r"[=@\t\r]|[+-].*([A-Za-z|\"'!(]|\d[-+*/^&])", re.DOTALL)
"""A cell that a spreadsheet would compute."""


def plant_outside(outside: Path) -> None:
    """Put the files of somebody else there anew."""
    shutil.rmtree(outside, ignore_errors=True)
    (outside / "folder").mkdir(parents=True)
    (outside / "secret.txt").write_text(f"root:{SECRET}\n" * 3, encoding="utf-8")
    (outside / "folder" / "kept.txt").write_text(f"{SECRET}\n", encoding="utf-8")


def unsafe(text: str, longest: int = LONGEST_LINE) -> str | None:
    """Why a text should not reach a terminal: a control character, or a line without end."""
    for line in text.split("\n"):
        if len(line) > longest:
            return f"a line of {len(line)} characters"
        if hidden := [char for char in line if unicodedata.category(char) in _CATEGORIES]:
            return f"character {hidden[0]!r}"
    return None


def leaked(text: str) -> str | None:
    """The first of what must stay secret that a text holds."""
    return next((word for word in (SECRET, TOKEN) if word in text), None)


def faults_of_files(folder: Path, since_ns: int) -> Iterator[str]:
    """Faults of the files under a folder that changed since then, as `outcome: path: why`."""
    for around, _, names in os.walk(folder):
        for name in names:
            path = Path(around) / name
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_ctime_ns < since_ns:
                continue
            if status.st_size > LARGEST_FILE or not os.access(path, os.R_OK):
                continue
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            if (word := leaked(text)) is not None:
                yield f"leak: {path}: holds {word}"
            if path.suffix in SHOWN and (why := _unsafe_file(path, text)) is not None:
                yield f"unsafe file: {path}: {why}"


def _unsafe_file(path: Path, text: str) -> str | None:
    if why := unsafe(text, longest=len(text)):
        return why
    if path.suffix != ".csv":
        return None
    cells = (cell for row in csv.reader(io.StringIO(text)) for cell in row)
    return next(
        (f"cell {cell!r:.60}" for cell in cells if _FORMULA.match(_MARKS.sub("", cell))), None
    )
