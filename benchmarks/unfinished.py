"""Takes the finished runs of an ablation to another machine, where the rest can be made.

    python -m benchmarks.unfinished pack runs/arena-listed     # beside its kept records
    python -m benchmarks.unfinished unpack arena-listed        # into runs/arena-listed

Packed is what an ablation reads of a run, without weights; then `fastslow ablate` goes on with the
runs that are missing. Of an ablation without missing runs nothing needs to be packed.
"""

import argparse
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.ablations import ABLATIONS, COMMANDS
from benchmarks.keeping import KEPT, ROOT
from fastslow.records.data import DATA_FILE

ARCHIVE = "finished.tar.xz"
FILES = (*KEPT, DATA_FILE, "report.json")


def pack(folder: Path) -> Path:
    """Write the archive of an ablation's finished runs, trials of its search included."""
    archive = ABLATIONS / folder.name / ARCHIVE
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz") as packed:
        for path in files_of(folder):
            packed.add(path, f"{folder.name}/{path.relative_to(folder)}", filter=_anonymous)
    return archive


def files_of(folder: Path) -> Iterator[Path]:
    """What is packed of an ablation's folder."""
    for card in sorted((*folder.glob("*/run.json"), *folder.glob("search/*/run.json"))):
        if json.loads(card.read_text())["state"] == "finished":
            yield from (path for name in FILES if (path := card.parent / name).is_file())
            yield from sorted(path for path in card.parent.glob("probe/*") if path.is_file())


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def unpack(name: str, runs: Path) -> None:
    """Put the packed runs of an ablation where `fastslow ablate` looks for them."""
    with tarfile.open(ABLATIONS / name / ARCHIVE) as packed:
        packed.extractall(runs, filter="data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pack").add_argument("folder", type=Path)
    commands.add_parser("unpack").add_argument("name", choices=sorted(COMMANDS))
    options = parser.parse_args(arguments)
    if options.command == "pack":
        print(pack(options.folder))
    else:
        unpack(options.name, ROOT / "runs")
        print(f"go on with: {COMMANDS[options.name]}")


if __name__ == "__main__":
    main()
