"""The bundled spaces: all of them load, say what their names say, and are found by name."""

from pathlib import Path

import pytest

import search_spaces
from igq import Scheme
from search_spaces import SearchSpaceError, UniformBudget

IMAGENET = [
    f"{model}_{size}_w{bits}a{bits}"
    for model in ("vit", "deit")
    for size in ("tiny", "small", "base")
    for bits in (4, 6)
] + [f"{model}_tiny_{bits}" for model in ("vit", "deit") for bits in ("w3a3", "w4a3", "w3a4")]
PAPER = ("vit_tiny_w4a4_paper", "deit_tiny_w4a4_paper")
WIDER = ("vit_tiny_w4a4_tied", "vit_tiny_mixed", "deit_tiny_mixed", "deit_tiny_mixed_small")


def test_bundled_spaces_are_the_demo_wider_ones_and_the_models_of_the_paper() -> None:
    assert set(search_spaces.names()) == {"demo", *PAPER, *WIDER, *IMAGENET}


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_bundled_space_loads(name: str) -> None:
    assert search_spaces.load(name).name == name


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_space_says_what_its_name_says(name: str) -> None:
    space = search_spaces.load(name)
    family, size, bits = name.split("_")
    assert space.model.name.startswith(f"{family}_{size}_patch16_224.")
    assert f"w{space.weight_bits}a{space.activation_bits}" == bits
    assert space.budget == UniformBudget(uniform=8)
    assert (space.weights, space.images) == (None, None)


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_way_is_that_of_igq_reproduce(name: str) -> None:
    space = search_spaces.load(name)
    assert space.scheme == Scheme.PAPER
    assert space.budget == UniformBudget(uniform=8)


def test_the_demo_brings_weights_and_images() -> None:
    demo = search_spaces.load("demo")
    assert demo.weights is not None
    assert demo.weights.is_absolute()
    assert demo.weights.is_file()
    assert demo.images == "digits"
    assert demo.search_images + demo.validation_images + demo.calibration_images <= 797


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_bundled_space_speaks_to_a_reader_first(name: str) -> None:
    folder = Path(search_spaces.__file__).parent
    assert (folder / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_closest() -> None:
    with pytest.raises(SearchSpaceError) as caught:
        search_spaces.load("diet_tiny_w4a4")
    known = ", ".join(search_spaces.names())
    assert str(caught.value) == (
        f"a search space must be one of {known}, or the path of a .yaml file, "
        "but got 'diet_tiny_w4a4'. Did you mean 'deit_tiny_w4a4'?"
    )


def test_a_name_like_no_other_is_suggested_nothing() -> None:
    with pytest.raises(SearchSpaceError, match=r"but got '\?'\.$"):
        search_spaces.load("?")
