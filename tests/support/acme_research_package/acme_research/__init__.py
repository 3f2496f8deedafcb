"""An ordinary package of another team."""
