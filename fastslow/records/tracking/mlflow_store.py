"""The SQLite file that MLflow keeps runs in: free, with all its tables, or as it was before.

MLflow makes its tables one by one, and so brings a file of an older version up to date. A process
that is killed in between would leave a file that no later one can open; so here it is one
transaction, which the next process to open the file undoes.
"""

import contextlib
import sqlite3
from pathlib import Path

LOCK_PATIENCE_S = 1.0
"""How long another program may hold the file before it counts as locked."""


class _Transaction(sqlite3.Connection):
    """A connection whose one transaction does not end where MLflow ends the parts of it."""

    def commit(self) -> None:
        """Leave it open."""

    def rollback(self) -> None:
        """Leave it open."""


def require_store(uri: str) -> None:
    """Make sure that a SQLite file can be written, and make the tables that it lacks.

    At once where it is locked or broken: MLflow would try for minutes. Other stores are MLflow's.

    Raises:
        OSError: It is locked or broken, or cannot be made.
    """
    if not uri.startswith("sqlite:///"):
        return
    from mlflow.store.db.utils import _all_tables_exist, _initialize_tables
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(
            path, LOCK_PATIENCE_S, isolation_level=None, factory=_Transaction
        )
        with contextlib.closing(connection):
            connection.execute("BEGIN IMMEDIATE")
            engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
            if not _all_tables_exist(engine):
                _initialize_tables(engine)
                connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error
