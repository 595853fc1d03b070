"""What the figures in README and docs come from; each prints a table and names its machine."""
