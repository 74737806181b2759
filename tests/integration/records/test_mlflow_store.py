"""MLflow's SQLite file when what makes its tables, or brings them up to date, is cut short."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.killing.stores import old_store
from fastslow.records.tracking.mlflow import MlflowTracker

NUM_CHANGES = 40
"""So often tables are made or changed before it is cut short; an old store needs more than that."""


class Kill(BaseException):
    """Nobody catches it, so that what comes after is not done, as by a kill."""


def prepare(store: Path) -> None:
    MlflowTracker(store.parent, f"sqlite:///{store}", "killed").prepare()


COLUMNS = "SELECT t.name, c.name, c.type FROM sqlite_master t JOIN pragma_table_info(t.name) c"


def columns(store: Path) -> set[tuple[str, str, str]]:
    """Every column of every table, with its type."""
    with sqlite3.connect(store) as database:
        return set(database.execute(COLUMNS))


def with_a_run(store: Path) -> None:
    old_store(store)
    with sqlite3.connect(store) as database:
        database.execute(
            "INSERT INTO experiments (name, lifecycle_stage) VALUES ('mine', 'active')"
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nothing disturbed."""
    store = tmp_path_factory.mktemp("whole") / "mlflow.db"
    prepare(store)
    return store


@pytest.mark.parametrize(
    "make", [lambda store: None, with_a_run], ids=["a new store", "one of an older version"]
)
def test_what_was_cut_short_is_done_by_the_next_process_and_nothing_is_lost(
    make: Callable[[Path], None], whole: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from sqlalchemy import Engine, event

    store = tmp_path / "mlflow.db"
    make(store)
    changes = list[str]()

    def kill(*values: Any) -> None:
        if values[2].lstrip().startswith(("CREATE", "ALTER", "DROP")):
            changes.append(values[2])
        if len(changes) == NUM_CHANGES:
            raise Kill

    event.listen(Engine, "before_cursor_execute", kill)
    try:
        with pytest.raises(Kill):
            prepare(store)
    finally:
        event.remove(Engine, "before_cursor_execute", kill)
    prepare(store)
    assert columns(store) == columns(whole)
    names = {e.name for e in MlflowClient(f"sqlite:///{store}").search_experiments()}
    assert names == {"Default", "killed"} | ({"mine"} if make is with_a_run else set())
