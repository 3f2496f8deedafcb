"""The tables and queries of lineage-service; the caller opens the transaction.

All queries are set-based: the number of queries does not grow with the number of flows.
"""
