"""What runs were expected to take, and what they took: minutes and memory.

    python -m benchmarks.prediction RUN [RUN ...]

Reads finished run folders that keep their estimate, and writes runs/reference/prediction.json. To
check on this machine: `fastslow check --calibrate FILE`, then `fastslow train FILE`, then this.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.keeping import REFERENCE
from fastslow.core.errors import CheckpointError
from fastslow.core.files import write_file
from fastslow.core.types import Json
from fastslow.records.events import RunEvent
from fastslow.records.jsonl import read_events
from fastslow.records.run_folder import ESTIMATE_FILE

FILE = "prediction.json"


def prediction(run: Path) -> dict[str, Json]:
    """Estimate and truth of one finished run.

    Raises:
        CheckpointError: It has no estimate, or has not finished.
    """
    events = [event for event in read_events(run / "events.jsonl") if isinstance(event, RunEvent)]
    if not events or events[-1].state != "finished" or not (run / ESTIMATE_FILE).is_file():
        raise CheckpointError(
            f"{run}: not a finished run with {ESTIMATE_FILE}. Train again with this version."
        )
    estimate = json.loads((run / ESTIMATE_FILE).read_bytes())
    environment = json.loads((run / "environment.json").read_bytes())
    return {
        "run": json.loads((run / "run.json").read_bytes())["name"],
        "cpus": environment["cpus_usable"],
        "device": environment["device"],
        "estimated_minutes": estimate["minutes"],
        "minutes": events[-1].seconds / 60,
        "estimated_gb": estimate["memory_gb"],
        "peak_gb": events[-1].peak_gb,
        "note": estimate["note"],
    }


def table(file: Path = REFERENCE / FILE) -> list[str]:
    """Lines of Markdown for docs/results.md; none where nothing was kept."""
    if not file.is_file():
        return []
    lines = ["| run | minutes expected | taken | GB expected | at most |", "|---|---|---|---|---|"]
    for row in json.loads(file.read_bytes()):
        keys = ("estimated_minutes", "minutes", "estimated_gb", "peak_gb")
        cells = ["unknown" if row[key] is None else f"{row[key]:.1f}" for key in keys]
        lines.append(f"| {row['run']} | {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs, write the file, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs; others stay")
    options = parser.parse_args(arguments)
    if options.runs:
        rows = [prediction(run) for run in options.runs]
        file, names = REFERENCE / FILE, {row["run"] for row in rows}
        others = json.loads(file.read_bytes()) if file.is_file() else []
        rows = [*(row for row in others if row["run"] not in names), *rows]
        write_file(REFERENCE, FILE, json.dumps(rows, indent=1) + "\n")
    print("\n".join(table()) or "nothing kept yet: name the folders of finished runs")


if __name__ == "__main__":
    main()
