"""Threads that wait let others work: settings that must stand before torch is imported."""

import os

PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""For GNU's and Intel's OpenMP: a thread that waits for others sleeps. Otherwise it keeps its core
busy for a while, and two processes that share cores hold each other up."""


def wait_patiently() -> None:
    """Have threads of this process, and of those that it starts, sleep while they wait.

    Settings of the user's own stand. It has an effect until torch is imported.

    >>> wait_patiently()
    >>> "OMP_WAIT_POLICY" in os.environ
    True
    """
    for name, value in PATIENT.items():
        os.environ.setdefault(name, value)
