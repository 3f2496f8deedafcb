"""Definitions and instances by file: read documents, plan the changes, apply them."""
