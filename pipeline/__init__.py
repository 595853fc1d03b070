"""The search: from a model and images to the best allocation within a budget.

>>> import pipeline
>>> fast = {"trials": 4, "rivals": False, "figures": False}
>>> result = pipeline.search("demo", "studies/first", **fast)  # doctest: +ELLIPSIS
reading images ...
>>> result.best.proposal.cost <= result.study.budget
True
>>> result.export("artifacts/first").path.name
'first'
>>> pipeline.open("studies/first").best == result.best
True

Names are looked up when they are first used: Ray, MLflow and torch take seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.analysis.comparison import Comparison, compared, over_seeds
    from pipeline.cluster import InProcess
    from pipeline.cluster.ray import RayCluster
    from pipeline.commands.artifacts.apply import apply
    from pipeline.commands.artifacts.bench import bench
    from pipeline.commands.artifacts.classify import classify
    from pipeline.commands.artifacts.evaluate import evaluate_artifact
    from pipeline.commands.artifacts.export import export
    from pipeline.commands.artifacts.package import package
    from pipeline.commands.artifacts.register import register
    from pipeline.commands.artifacts.verify import verify_artifact
    from pipeline.commands.studies.result import Result
    from pipeline.commands.studies.result import open_study as open
    from pipeline.commands.studies.search import run, search
    from pipeline.errors import ClusterError, DataError, StudyError, TrackingError
    from pipeline.evaluation.validation import load_validation
    from pipeline.study.best import best
    from pipeline.study.request import Engine, Request, Sampler
    from pipeline.tracking import InMemoryTracker
    from pipeline.tracking.mlflow import MlflowTracker

_ROOMS = {
    "errors": (
        "ClusterError",
        "DataError",
        "StudyError",
        "TrackingError",
    ),
    "analysis.comparison": (
        "Comparison",
        "compared",
        "over_seeds",
    ),
    "study.request": (
        "Engine",
        "Request",
        "Sampler",
    ),
    "tracking": ("InMemoryTracker",),
    "cluster": ("InProcess",),
    "tracking.mlflow": ("MlflowTracker",),
    "cluster.ray": ("RayCluster",),
    "commands.studies.result": (
        "Result",
        "open",
    ),
    "commands.artifacts.package": ("package",),
    "commands.artifacts.register": ("register",),
    "study.best": ("best",),
    "commands.artifacts.apply": ("apply",),
    "commands.artifacts.bench": ("bench",),
    "commands.artifacts.classify": ("classify",),
    "commands.artifacts.evaluate": ("evaluate_artifact",),
    "commands.artifacts.export": ("export",),
    "evaluation.validation": ("load_validation",),
    "commands.studies.search": (
        "run",
        "search",
    ),
    "commands.artifacts.verify": ("verify_artifact",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
_RENAMED = {"open": "open_study"}

__all__ = [
    "ClusterError",
    "Comparison",
    "DataError",
    "Engine",
    "InMemoryTracker",
    "InProcess",
    "MlflowTracker",
    "RayCluster",
    "Request",
    "Result",
    "Sampler",
    "StudyError",
    "TrackingError",
    "apply",
    "bench",
    "best",
    "classify",
    "compared",
    "evaluate_artifact",
    "export",
    "load_validation",
    "open",
    "over_seeds",
    "package",
    "register",
    "run",
    "search",
    "verify_artifact",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    module = import_module(f"pipeline.{_ROOM_OF[name]}")
    return getattr(module, _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return __all__
