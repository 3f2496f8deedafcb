"""Tables and queries of instance-service; it decides nothing and opens no transaction."""
