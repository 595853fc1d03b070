"""Use cases of studies: search, open a result, compare it with others, report it."""
