"""The SQL queries, one module for each noun; the migrations hold the schema, and the domain holds the rules.

All queries are set-based: the number of queries does not grow with the number of flows.
"""
