"""Execute Prefect flow runs and provide the built-in definitions; no status is decided here and no record owned."""
