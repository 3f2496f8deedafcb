"""Publish and read definitions, and change the states of versions; a version's content never changes."""
