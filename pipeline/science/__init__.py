"""Science: the authors' table, and its reproduction."""
