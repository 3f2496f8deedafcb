"""The pure part of an optimization: scores and returns in, weights and figures out; it reads no store and calls no service."""
