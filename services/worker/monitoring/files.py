"""The names of the files that a monitoring consists of, below its run's output folder, and of their artifacts."""

from __future__ import annotations

REPORT, REPORT_FILE = "report", "report.html"  # for readers
SNAPSHOT, SNAPSHOT_FILE = "snapshot", "snapshot.json"  # the same for Evidently's projects
COLUMNS, COLUMNS_FILE = "column_metrics", "column_metrics.parquet"  # a row for each column
