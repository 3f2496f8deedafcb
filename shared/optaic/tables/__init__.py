"""Read tables in pieces of bounded size, from files that are not trusted: no plugin runs, and all data is only data.

A table is a version of a built-in store (`delta`, `parquet`) or one file of a run. `rows` scans it and `statistics` sums it up.
Import the modules themselves: they need what the extra `data` brings.
"""
