"""Instances: their changes, pauses and deletions, what is read of them, and what the reconciler found."""
