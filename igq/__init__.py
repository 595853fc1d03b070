"""Instance-aware group quantization of vision transformers (IGQ-ViT, CVPR 2024).

Each layer has a few quantizers, and in every image each channel of a linear layer's input, or each
row of a softmax map, picks the one that suits its own range.

    candidates = igq.fit(igq.observe(vit, images, igq.Scheme.BEST), num_groups=(2, 4, 8), bits=4)
    sensitivity = igq.sensitivity(vit, candidates, images)
    allocation = igq.allocate(sensitivity, igq.bops(candidates, weight_bits=4).limit(uniform=8))
    quantized = igq.quantize(vit, candidates.select(allocation), weight_bits=4)

Names are looked up when they are first used, so that `import igq` loads neither torch nor timm.

Reference: Moon, Kim, Cheon, Ham, "Instance-Aware Group Quantization for Vision Transformers".
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igq.allocation import Allocation, allocate, largest_uniform, uniform
    from igq.correction import Corrected, correct
    from igq.costs import CostTable, Limit, Limits, Tie, Unit, bops
    from igq.errors import (
        ArtifactError,
        IgqError,
        InfeasibleBudgetError,
        InvalidArgumentError,
        ProfileError,
        RuntimeLibraryError,
        UnsupportedModelError,
        WeightsError,
    )
    from igq.evaluation import Observation, Score, evaluate
    from igq.formats import Artifact, load, save
    from igq.grouping import Grouping, GroupQuantizer, SliceQuantizer, grouping_of
    from igq.layer import Kind, Layer, grouped
    from igq.quantized import (
        Candidates,
        Execution,
        Ranges,
        Selection,
        fit,
        observe,
        quantize,
        rotated,
    )
    from igq.runtime import deploy
    from igq.scheme import Assignment, InputMethod, Rotation, Scheme, SoftmaxMethod, WeightMethod
    from igq.sensitivities import predicted_sensitivity, sensitivity
    from igq.settings import Options, Setting
    from igq.vit import create, create_pretrained, layers

_ROOMS = {
    "allocation": (
        "Allocation",
        "allocate",
        "largest_uniform",
        "uniform",
    ),
    "correction": (
        "Corrected",
        "correct",
    ),
    "costs": (
        "CostTable",
        "Limit",
        "Limits",
        "Tie",
        "Unit",
        "bops",
    ),
    "errors": (
        "ArtifactError",
        "IgqError",
        "InfeasibleBudgetError",
        "InvalidArgumentError",
        "ProfileError",
        "RuntimeLibraryError",
        "UnsupportedModelError",
        "WeightsError",
    ),
    "evaluation": (
        "Observation",
        "Score",
        "evaluate",
    ),
    "formats": (
        "Artifact",
        "load",
        "save",
    ),
    "grouping": (
        "GroupQuantizer",
        "Grouping",
        "SliceQuantizer",
        "grouping_of",
    ),
    "layer": (
        "Kind",
        "Layer",
        "grouped",
    ),
    "quantized": (
        "Candidates",
        "Execution",
        "Ranges",
        "Selection",
        "fit",
        "observe",
        "quantize",
        "rotated",
    ),
    "runtime": ("deploy",),
    "scheme": (
        "Assignment",
        "InputMethod",
        "Rotation",
        "Scheme",
        "SoftmaxMethod",
        "WeightMethod",
    ),
    "sensitivities": (
        "predicted_sensitivity",
        "sensitivity",
    ),
    "settings": (
        "Options",
        "Setting",
    ),
    "vit": (
        "create",
        "create_pretrained",
        "layers",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Allocation",
    "Artifact",
    "ArtifactError",
    "Assignment",
    "Candidates",
    "Corrected",
    "CostTable",
    "Execution",
    "GroupQuantizer",
    "Grouping",
    "IgqError",
    "InfeasibleBudgetError",
    "InputMethod",
    "InvalidArgumentError",
    "Kind",
    "Layer",
    "Limit",
    "Limits",
    "Observation",
    "Options",
    "ProfileError",
    "Ranges",
    "Rotation",
    "RuntimeLibraryError",
    "Scheme",
    "Score",
    "Selection",
    "Setting",
    "SliceQuantizer",
    "SoftmaxMethod",
    "Tie",
    "Unit",
    "UnsupportedModelError",
    "WeightMethod",
    "WeightsError",
    "allocate",
    "bops",
    "correct",
    "create",
    "create_pretrained",
    "deploy",
    "evaluate",
    "fit",
    "grouped",
    "grouping_of",
    "largest_uniform",
    "layers",
    "load",
    "observe",
    "predicted_sensitivity",
    "quantize",
    "rotated",
    "save",
    "sensitivity",
    "uniform",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"igq.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'igq' has no attribute {name!r}")
    return getattr(import_module(f"igq.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
