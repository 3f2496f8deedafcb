"""What a Prefect flow run executes, and the built-in definitions; it decides no status and owns no record."""
