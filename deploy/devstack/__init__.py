"""The embedded default: the whole control plane on one machine, from wheels. Never used in production."""
