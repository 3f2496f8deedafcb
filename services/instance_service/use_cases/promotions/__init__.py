"""Promotions: a model version to champion, a dataset to signal, and the outputs that they are judged by."""
