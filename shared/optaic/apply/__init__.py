"""Definitions and instances by file: what a document wants, what that changes, and doing it."""
