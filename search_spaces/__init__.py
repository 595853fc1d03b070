"""Search spaces: one YAML file for each, bundled or a user's own. `load` takes either."""

from difflib import get_close_matches
from pathlib import Path

from search_spaces.budgets import (
    BopsBudget,
    Budget,
    LatencyBudget,
    OverheadBudget,
    UniformBudget,
    parse_budget,
)
from search_spaces.messages import SearchSpaceError
from search_spaces.reading import read
from search_spaces.schema import ModelSpec, SearchSpace
from search_spaces.sizes import BytesSize, Size, WeightBitsSize

__all__ = [
    "BopsBudget",
    "Budget",
    "BytesSize",
    "LatencyBudget",
    "ModelSpec",
    "OverheadBudget",
    "SearchSpace",
    "SearchSpaceError",
    "Size",
    "UniformBudget",
    "WeightBitsSize",
    "load",
    "names",
    "parse_budget",
]

_BUNDLED = Path(__file__).parent
_SUFFIXES = (".yaml", ".yml")


def load(name_or_path: str | Path) -> SearchSpace:
    """Load a bundled space by its name, or a space of your own by the path of its YAML file.

    Raises:
        SearchSpaceError: there is no such space, or its file breaks a rule.

    >>> space = load("deit_tiny_w4a4")
    >>> space.weight_bits, space.num_groups, space.budget
    (4, (1, 2, 3, 4, 6, 8, 12, 24), UniformBudget(uniform=8))
    """
    if name_or_path in names():
        return read(_BUNDLED / f"{name_or_path}.yaml")
    path = Path(name_or_path)
    if path.suffix in _SUFFIXES:
        return read(path)
    raise SearchSpaceError(_unknown(str(name_or_path)))


def names() -> tuple[str, ...]:
    """Name the bundled spaces, in alphabetical order.

    >>> "demo" in names()
    True
    """
    return tuple(sorted(path.stem for path in _BUNDLED.glob("*.yaml")))


def _unknown(name: str) -> str:
    closest = get_close_matches(name, names(), n=1)
    suggestion = f" Did you mean {closest[0]!r}?" if closest else ""
    rule = f"a search space must be one of {', '.join(names())}, or the path of a .yaml file"
    return f"{rule}, but got {name!r}.{suggestion}"
