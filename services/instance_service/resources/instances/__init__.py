"""Complete, check and describe instances: drafts, rows, revisions, conditions and the rules for them."""
