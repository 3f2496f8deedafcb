"""A service with two tables, to test servicekit with."""
