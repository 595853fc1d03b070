"""Use cases, one in each file: search, open a result, export it, evaluate an artifact."""
