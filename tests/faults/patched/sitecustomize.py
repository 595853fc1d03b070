"""Trials that take their time or go wrong, in every process that has this folder on its path.

IGQ_CHUNK_SECONDS: how long each chunk of a trial takes at least. IGQ_TROUBLE: what becomes of the
uniform allocation, `raise` an error or `kill`, as the system does to a process out of memory.
IGQ_GATE: a file that no trial begins beside.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time

sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]
PATCHED = "pipeline.evaluation.objective"


class Patching(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != PATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.Objective.evaluate = troubled(module.Objective.evaluate)

        spec.loader.exec_module = exec_module
        return spec


def troubled(evaluate):
    def slowly(self, allocation):
        trouble = os.environ.get("IGQ_TROUBLE")
        if trouble and len(set(dict(allocation).values())) == 1:
            if trouble == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise MemoryError("no room for 1 PiB")
        while os.path.exists(os.environ.get("IGQ_GATE", "")):
            time.sleep(0.05)
        for observed in evaluate(self, allocation):
            time.sleep(float(os.environ.get("IGQ_CHUNK_SECONDS", "0")))
            yield observed

    return slowly


sys.meta_path.insert(0, Patching())
