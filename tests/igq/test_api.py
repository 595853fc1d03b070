"""The package from the outside: design section 5, and what every public name promises."""

import doctest
import inspect
import re
from pathlib import Path

import pytest
import timm
import torch

import igq
from igq import errors


@pytest.mark.parametrize("scheme", [igq.Scheme.BEST, igq.Scheme.PAPER], ids=["best", "paper"])
def test_the_prose_of_the_design_runs(tmp_path: Path, scheme: igq.Scheme) -> None:
    vit = timm.create_model(
        "deit_tiny_patch16_224",
        img_size=8,
        patch_size=2,
        in_chans=1,
        num_classes=10,
        embed_dim=12,
        depth=1,
        num_heads=3,
    ).eval()
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    calibration_images, search_images, validation_images = images.split([2, 2, 4])

    ranges = igq.observe(vit, calibration_images, scheme)
    candidates = igq.fit(ranges, num_groups=(2, 4, 8, 16), bits=4)
    sensitivity = igq.sensitivity(vit, candidates, search_images)
    limits = igq.bops(candidates, weight_bits=4).limit(uniform=8)
    allocation = igq.allocate(sensitivity, limits)
    quantized = igq.quantize(vit, candidates.select(allocation), weight_bits=4)
    score = igq.evaluate(quantized, validation_images, reference=vit)
    path = igq.save(quantized, tmp_path / "vit_tiny_w4a4")

    assert limits.fits(allocation)
    assert score.kl > 0
    again = igq.load(path)
    assert again.allocation == allocation
    assert igq.evaluate(again.model, validation_images, reference=quantized).kl == 0


def test_public_names_are_sorted_and_exist() -> None:
    assert igq.__all__ == sorted(igq.__all__)
    assert all(hasattr(igq, name) for name in igq.__all__)


@pytest.mark.parametrize("name", igq.__all__)
def test_a_public_name_says_what_it_is_with_an_example_that_runs(name: str) -> None:
    documented = getattr(igq, name)
    text = inspect.getdoc(documented)
    assert text
    assert not text.startswith(f"{name}("), "a docstring of one's own, not the dataclass's"
    assert doctest.DocTestParser().get_examples(text), "an example"


@pytest.mark.parametrize("name", [n for n in igq.__all__ if inspect.isfunction(getattr(igq, n))])
def test_a_function_s_errors_are_those_of_the_tree(name: str) -> None:
    text = inspect.getdoc(getattr(igq, name)) or ""
    _, _, raises = text.partition("Raises:\n")
    listed = re.findall(r"^    (\w+): ", raises, flags=re.MULTILINE)
    assert all(issubclass(getattr(errors, error), igq.IgqError) for error in listed)


def test_errors_are_the_tree_that_is_drawn() -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "+-- " in line]
    names = [line.split("+-- ")[1].split()[0] for line in drawn]
    kinds = [k for k in igq.IgqError.__subclasses__() if k.__module__ == errors.__name__]
    assert names == [kind.__name__ for kind in kinds]  # others may add theirs
    assert issubclass(igq.InvalidArgumentError, ValueError)


def test_the_lazy_table_names_what_editors_see() -> None:
    source = Path(igq.__file__).read_text()
    (block,) = re.findall(r"if TYPE_CHECKING:\n(.*?)\n\n", source, flags=re.DOTALL)
    assert set(re.findall(r"\b(\w+)\b", re.sub(r"from [\w.]+ import", "", block))) == set(
        igq.__all__
    )
