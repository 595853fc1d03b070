"""Studies: what was asked for, where its files lie, its trials, and the one definition of best."""
