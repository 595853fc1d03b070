"""The search: from a model and images to the best allocation within a budget.

    request = pipeline.Request(search_spaces.load("demo"), out=Path("studies/demo"))
    result = pipeline.search(request, pipeline.InProcess(), pipeline.InMemoryTracker())
    pipeline.export(request.out, Path("artifacts/demo"))

Names are looked up when they are first used: Ray and MLflow take seconds to load.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "ClusterError": "errors",
    "DataError": "errors",
    "InMemoryTracker": "tracking",
    "InProcess": "cluster",
    "MlflowTracker": "tracking",
    "RayCluster": "cluster",
    "Request": "config",
    "Result": "concluding",
    "Sampler": "config",
    "StudyError": "errors",
    "TrackingError": "errors",
    "best": "study",
    "compared": "comparison",
    "load_validation": "comparison",
    "over_seeds": "comparison",
    "evaluate_artifact": "exporting",
    "search": "searching",
    "export": "exporting",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(f"pipeline.{_NAMES[name]}"), name)
