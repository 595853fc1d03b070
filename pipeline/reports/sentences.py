"""A study's result in sentences and command lines, as descriptions and reports show it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.analysis.comparison import Comparison
from pipeline.reports.tables import verdict
from pipeline.study.definition import Definition


def verdict_sentence(rows: Sequence[Comparison], images: int) -> str:
    """Say whom the best allocation beats on the validation images.

    >>> import pipeline
    >>> verdict_sentence(pipeline.open("studies/demo").comparisons, 400)[:39]
    'On 400 images that the search did not s'
    """
    said = {"better": "better than", "no different": "no different from", "worse": "worse than"}
    parts = []
    for word, phrase in said.items():
        if names := [row.name for row in rows if verdict(row) == word]:
            parts.append(f"{phrase} {_listed(names)}")
    of = f"On {images} images that the search did not see, the best allocation"
    kl = rows[0].kl
    start = f"{of} has a KL of {kl.mean:.4f} nats (95 % interval {kl.low:.4f} to {kl.high:.4f})"
    return f"{start}: {'; '.join(parts)}." if parts else f"{start}."


def gain_sentence(rows: Sequence[Comparison]) -> str:
    """Say how much KL the best has less than the uniform allocation; empty without one."""
    uniform = next((row for row in rows if row.name == "uniform"), None)
    if uniform is None or uniform.difference is None or uniform.kl.mean <= 0:
        return ""
    share = -uniform.difference.mean / uniform.kl.mean
    way = "less" if share >= 0 else "more"
    luck = ", within the noise of these images" if uniform.difference.holds_zero else ""
    return f"That is {abs(share):.0%} {way} than the uniform allocation of the same budget{luck}."


def means_in_words(means: Mapping[str, float]) -> str:
    """Return means of a setting's parts in words; groups go without saying.

    >>> means_in_words({"groups_by_kind.qkv": 2.5, "bits_by_kind.qkv": 4.0})
    'qkv 2.5, qkv bits 4'
    """
    parts = []
    for name, mean in means.items():
        part, _, of = name.partition(".")
        unit = part.partition("_by_")[0].replace("_", " ")
        parts.append(f"{of[2:] if of[:2] in ('1_', '2_', '3_') else of}{_unit(unit)} {mean:.3g}")
    return ", ".join(parts)


def _unit(name: str) -> str:
    return "" if name == "groups" else f" {name}"


def title(definition: Definition) -> str:
    """Return a study's name that tells: model, bits, budget and seed.

    >>> import pipeline
    >>> title(pipeline.open("studies/demo").study.definition)
    'vit_tiny w4a2 uniform 2, seed 0'
    """
    space = definition.space
    bits = (f"{letter}{_bits(some)}" for letter, some in _searched(definition))
    front = " front" if definition.front else ""
    model = space.model.name.partition("_patch")[0]
    return f"{model} {''.join(bits)} {space.budget}{front}, seed {definition.seed}"


def search_command(definition: Definition, trials: int, rivals: bool = True) -> str:
    """Return the command line that makes the study again; `rivals` is whether there were any."""
    words = ["igq", "search", definition.space.name, "--images", definition.sources["search"]]
    for purpose in ("calibration", "validation"):
        if definition.sources[purpose] != definition.sources["search"]:
            words += [f"--{purpose}", definition.sources[purpose]]
    if definition.weights:
        words += ["--weights", definition.weights]
    words += ["--trials", str(trials), "--seed", str(definition.seed)]
    words += ["--sampler", definition.sampler.value]
    words += ["--front"] if definition.front else []
    return shlex.join([*words, *([] if rivals or definition.front else ["--no-rivals"])])


def had_rivals(rows: Sequence[Comparison]) -> bool:
    """Return whether rivals were given as much compute as the search; a search has, till it ends.

    >>> had_rivals([])
    True
    """
    return not rows or any(row.name == "repaired" for row in rows)


def export_command(folder: Path) -> str:
    """Return the command line that exports the study's best allocation."""
    return shlex.join(["igq", "export", str(folder), "--out", f"artifacts/{folder.name}"])


def folded(command: str) -> str:
    r"""Return a command line with one option a line: a long line would widen a page, or be broken.

    >>> print(folded("igq search demo --seed 0"))
    igq search demo \
      --seed 0
    """
    return command.replace(" --", " \\\n  --")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _searched(definition: Definition) -> tuple[tuple[str, Sequence[int]], ...]:
    options = definition.space.options
    return ("w", options.weight_bits), ("a", options.activation_bits)


def _bits(some: Sequence[int]) -> str:
    return str(some[0]) if len(some) == 1 else f"{min(some)}-{max(some)}"
