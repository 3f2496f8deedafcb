"""Fixtures and instruments shared by all tests; nothing here is shipped."""
