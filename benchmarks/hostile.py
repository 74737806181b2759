"""Feeds hostile input to fastslow and counts what became of it.

    python -m benchmarks.hostile --configs 10000 --data 2000 --folders 2000
    python -m benchmarks.hostile --again runs:17        # one case, with its whole error

Always a typed error, or accepted: never a traceback, a hang, a file outside the case's folder, a
program, a socket, a pickle, a secret of another file or of the environment, an edit that passes, or
an escape sequence in what is printed or written. Exit code 1 when one is seen.
Cases follow from `--seed`, the section's name and the case's index.
"""

import argparse
import collections
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import write_figures
from benchmarks.fuzzing.configs import ROOT, config_case
from benchmarks.fuzzing.data import file_case, grader_case, name_case, table_case
from benchmarks.fuzzing.folders import model_case, resume_case
from benchmarks.fuzzing.folders import run_case as run_folder_case
from benchmarks.fuzzing.handed_over import folder_case, handed_over
from benchmarks.fuzzing.running import BAD, Case, Result, run_section
from benchmarks.fuzzing.watching import snapshot

LIMIT_S = 30.0
"""A case that takes longer counts as a hang; the slowest takes about a second."""


OTHERS: Mapping[str, tuple[Case, float]] = {
    "tables": (table_case, 0.30),
    "files": (file_case, 0.10),
    "graders": (grader_case, 0.15),
    "names": (name_case, 0.10),
    "runs": (run_folder_case, 0.20),
    "resume": (resume_case, 0.08),
    "models": (model_case, 0.07),
}
"""Parts of `--data`: how a case is made, and its share."""


def sections(configs: int, data: int, folders: int) -> Mapping[str, tuple[Case, int]]:
    """Cases by section, and how many of each; all but `configs` and `folders` share `data`."""
    shares = {name: round(share * data) for name, (_, share) in OTHERS.items()}
    others = {name: (case, shares[name]) for name, (case, _) in OTHERS.items()}
    return {"configs": (config_case, configs), **others, "folders": (folder_case, folders)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases, print the counts, and return the exit code."""
    options = _options(arguments)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # a name may look like an id
    wanted = sections(options.configs, options.data, options.folders)
    if options.again:
        name, _, index = options.again.partition(":")
        wanted = {name: (wanted[name][0], 1)}
    if options.only:
        wanted = {options.only: wanted[options.only]}
    _prepare(set(wanted))
    start = int(index) if options.again else 0
    began, found = time.monotonic(), list[Result]()
    counts = {name: collections.Counter[str]() for name in wanted}
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        bait = Path(folder) / "bait"
        bait.mkdir()
        (bait / "kept.txt").write_text("not to be touched\n")
        kept = [ROOT / name for name in ("configs", "fastslow", "runs", "tasks")]
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        before = snapshot(*kept, contents=False) | snapshot(bait, contents=True)
        for name, (make, count) in wanted.items():
            for result in run_section(
                name, make, count, options.seed, scratch, limit_s=options.limit, start=start
            ):
                counts[name][result.outcome] += 1
                if result.outcome in BAD or options.again:
                    found.append(result)
        after = snapshot(*kept, contents=False) | snapshot(bait, contents=True)
    changed = sorted(set(before.items()) ^ set(after.items()))
    seconds = time.monotonic() - began
    for result in found[: options.show]:
        print(f"\n{result.section}:{result.index}: {result.outcome}\n{result.detail}")
    print(_table(counts), f"{seconds:.0f} s; changed on disk outside: {len(changed)}", sep="\n")
    for path, _ in changed[:10]:
        print(f"  {path}")
    if options.json:
        figures = {
            "seed": options.seed,
            "seconds": round(seconds, 1),
            "outcomes": {name: dict(sorted(count.items())) for name, count in counts.items()},
            "bad": {kind: sum(c[kind] for c in counts.values()) for kind in BAD},
            "changed_outside": len(changed),
        }
        write_figures(Path(options.json), figures, "hostile", arguments)
    return int(bool(changed) or any(c[kind] for c in counts.values() for kind in BAD))


def _prepare(names: set[str]) -> None:
    """Import and make what sections share, once and not in the process of each."""
    if names & {"names", "resume", "models", "folders"}:
        importlib.import_module("fastslow.loop.launch")
    if "folders" in names:
        handed_over()


def _table(counts: Mapping[str, collections.Counter[str]]) -> str:
    kinds = sorted({kind for count in counts.values() for kind in count} - set(BAD)) + list(BAD)
    width = max(map(len, kinds))
    names = list(counts)
    lines = [" " * width + "".join(f"{name:>10}" for name in names)]
    for kind in kinds:
        lines.append(f"{kind:{width}}" + "".join(f"{counts[name][kind]:>10}" for name in names))
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--configs", type=int, default=2000, help="mutated configurations")
    parser.add_argument("--data", type=int, default=500, help="other mutated input")
    parser.add_argument("--folders", type=int, default=300, help="run folders handed over")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds of one case")
    parser.add_argument("--json", help="write the counts to this file")
    parser.add_argument("--show", type=int, default=10, help="bad cases to print")
    parser.add_argument("--only", help="run this section alone")
    parser.add_argument("--again", metavar="SECTION:INDEX", help="run one case, show its error")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
