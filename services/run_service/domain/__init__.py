"""The rules of runs: pure functions without storage, transport or clock."""
