"""The default and the largest number of rows on a page of a list."""

from __future__ import annotations

DEFAULT_SIZE, LARGEST_SIZE = 100, 1_000
# For lists with small rows: upstreams, dependants, and what a deletion would remove.
LONG_DEFAULT_SIZE, LONG_LARGEST_SIZE = 1_000, 10_000
