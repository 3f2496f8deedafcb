"""The queries, by noun; the schema is in the migrations, and no rule is decided here.

All of them are set-based: their number does not grow with the number of flows.
"""
