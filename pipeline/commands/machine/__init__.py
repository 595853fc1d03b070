"""Use cases of the machine at hand: what it has, how fast it is, and the results that it keeps."""
