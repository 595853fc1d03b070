"""Reports for people: tables, progress and figures."""
