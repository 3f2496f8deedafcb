"""Plugins of the tests of upgrades."""
