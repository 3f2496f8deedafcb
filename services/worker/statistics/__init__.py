"""Statistics of scores and returns that several kinds of run report; tables in, tables and numbers out."""
