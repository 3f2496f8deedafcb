"""Promote model versions to champion and datasets to signals, and record the outputs that this depends on."""
