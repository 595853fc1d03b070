"""Instance-aware group quantization of vision transformers (IGQ-ViT, CVPR 2024).

Each layer has a few quantizers, and in every image each channel of a linear layer's input, or
each row of a softmax map, picks the one that suits its own range.

    ranges = igq.observe(model, images)
    candidates = igq.fit(ranges, num_groups=(2, 4, 8), bits=4)
    allocation = igq.uniform(igq.layers(model), 8)
    quantized = igq.quantize(model, candidates.select(allocation), weight_bits=4)

Reference: Moon, Kim, Cheon, Ham, "Instance-Aware Group Quantization for Vision Transformers".
"""

from igq.allocation import Allocation, allocate, check_budget, uniform
from igq.artifact import Artifact, load, save
from igq.candidates import Candidates, fit
from igq.correction import Corrected, correct
from igq.cost import BopsTable, bops
from igq.errors import (
    ArtifactError,
    IgqError,
    InfeasibleBudgetError,
    InvalidArgumentError,
    UnsupportedModelError,
    WeightsError,
)
from igq.evaluation import Score, evaluate, paired_difference
from igq.fisher import predicted_sensitivity
from igq.fitting import fit_groups
from igq.grouping import GroupQuantizer
from igq.layers import Assignment, Layer, Slices, grouped
from igq.observer import Ranges, observe
from igq.rotation import Rotation
from igq.sensitivity import sensitivity
from igq.vit import create, create_pretrained, layers, quantize, rotated

__all__ = [
    "Allocation",
    "Artifact",
    "ArtifactError",
    "Assignment",
    "BopsTable",
    "Candidates",
    "Corrected",
    "GroupQuantizer",
    "IgqError",
    "InfeasibleBudgetError",
    "InvalidArgumentError",
    "Layer",
    "Ranges",
    "Rotation",
    "Score",
    "Slices",
    "UnsupportedModelError",
    "WeightsError",
    "allocate",
    "bops",
    "check_budget",
    "correct",
    "create",
    "create_pretrained",
    "evaluate",
    "fit",
    "fit_groups",
    "grouped",
    "layers",
    "load",
    "observe",
    "paired_difference",
    "predicted_sensitivity",
    "quantize",
    "rotated",
    "save",
    "sensitivity",
    "uniform",
]
