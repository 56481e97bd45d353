"""Databases as earlier versions of the tables had them: what later migrations added is taken away again."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from search.store.tables import VERSION_TABLE

METRICS = ("balanced_accuracy", "macro_f1", "top5", "calibration_error")
# By the version that added them, the newest first: columns, tables, and columns that were renamed (from, to).
COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "v0012": {"point": ("peak_memory_mb", "energy_mj")},
    "v0009": {"latency": ("peak_memory_mb", "energy_mj")},
    "v0008": {"trial": METRICS, "curve": ("val_balanced_accuracy", "val_macro_f1")},
    "v0007": {"request": ("withdrawn_at",)},
    "v0005": {"trial": ("continues",)},
    "v0004": {"latency_samples": ("cpu_ms",)},
    "v0002": {"trial": ("expected_top1",)},
}
TABLES: Mapping[str, tuple[str, ...]] = {
    "v0012": ("file_predictions",),
    "v0011": ("note",),
    "v0010": ("point",),
    "v0008": ("predictions",),
    "v0003": ("proposal", "belief"),
}
RENAMED: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "v0008": {"trial": ("expected_top1", "expected_score"), "proposal": ("top1", "score")}
}


def take_back(connection: sqlite3.Connection, version: str) -> None:
    """Give a database the tables of an earlier version, and commit; rows stay as far as that version has them."""
    versions = sorted({*COLUMNS, *TABLES, *RENAMED}, reverse=True)
    for later in (one for one in versions if one > version):
        for table, (before, now) in RENAMED.get(later, {}).items():
            connection.execute(f"ALTER TABLE condensery_{table} RENAME COLUMN {now} TO {before}")
        for table, names in COLUMNS.get(later, {}).items():
            for name in names:
                connection.execute(f"ALTER TABLE condensery_{table} DROP COLUMN {name}")
        for table in TABLES.get(later, ()):
            connection.execute(f"DROP TABLE condensery_{table}")
    if version < "v0006":  # until then each path was recorded once
        again = ("$.study.files_from_database", "$.data.folder_from_database", "$.data.dataset_from_database")
        connection.execute("UPDATE condensery_study SET settings = json_remove(settings, ?, ?, ?)", again)
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", (version,))
    connection.commit()
