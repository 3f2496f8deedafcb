"""The rules of runs, as pure functions over plain values: no database, no transport, no clock."""
