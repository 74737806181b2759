"""The data of a run as trackers are told of it: a fingerprint of every split."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastslow.core.tracker import TaskSplit
from fastslow.core.types import Example
from fastslow.records.data import read_data


def data_splits(run: Path, examples: Mapping[str, Sequence[Example]]) -> list[TaskSplit]:
    """The splits of every task of a run, in order; none where its version did not record them.

    `examples` are the test examples that are scored, by task, where they are at hand.

    Raises:
        CheckpointError: data.json is damaged.
    """
    return [
        TaskSplit(task, split, fingerprint(hashes), len(hashes), scored)
        for task, data in read_data(run).items()
        for split, hashes in data.splits.items()
        for scored in [tuple(examples.get(task, ())) if split == "test" else ()]
    ]


def fingerprint(hashes: Mapping[str, str]) -> str:
    """Twelve hex digits of the SHA-256 of a split's ids, questions and answers, in any order."""
    canonical = json.dumps(sorted(hashes.items()), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:12]
