"""Instances: their drafts, rows, revisions, conditions, and the rules that they keep."""
