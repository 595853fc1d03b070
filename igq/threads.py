"""The number of threads that torch computes with, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """Have torch compute with so many threads of the processor for a while.

    Products of gradients are split among threads, and their parts added in another order: one
    thread gives the same sums whatever the machine has. A GPU's work is not touched.

    >>> import torch
    >>> with with_threads(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
