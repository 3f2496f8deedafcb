"""Check definitions and their versions: content, changes, and the macros and operators that expressions call."""
