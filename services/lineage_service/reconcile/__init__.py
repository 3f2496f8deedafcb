"""The loops of lineage-service."""
