"""The demo's images, its shipped weights, and the script that makes them again."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import search_spaces
from igq.vit import create
from search_spaces.demo.digits import Digits, digits_split
from search_spaces.demo.training import WEIGHTS, Training, accuracy, distort, save, train

STATED_ACCURACY = 0.98
FIRST_LABELS = [2, 1, 9, 2, 3, 1, 7, 7, 4, 5]
FEW_STEPS = Training(epochs=1)


def few(digits: Digits, count: int) -> Digits:
    return Digits(images=digits.images[:count], labels=digits.labels[:count])


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_the_split_has_the_shapes_types_and_range_that_it_states() -> None:
    split = digits_split()
    for digits, count in ((split.train, 1000), (split.rest, 797)):
        assert digits.images.shape == (count, 1, 8, 8)
        assert digits.images.dtype == np.float32
        assert (digits.images.min(), digits.images.max()) == (-1.0, 1.0)
        assert digits.labels.shape == (count,)
        assert digits.labels.dtype == np.int64
        assert set(digits.labels) == set(range(10))


def test_the_two_parts_are_disjoint_and_together_all_digits() -> None:
    from sklearn.datasets import load_digits

    split = digits_split()
    parts = np.concatenate([split.train.images, split.rest.images])
    every = (load_digits().images[:, None] / 8 - 1).astype(np.float32)
    assert sorted(image.tobytes() for image in parts) == sorted(i.tobytes() for i in every)
    train = {image.tobytes() for image in split.train.images}
    assert not any(image.tobytes() in train for image in split.rest.images)


def test_the_split_is_always_the_same() -> None:
    split = digits_split()
    assert split.rest.labels[:10].tolist() == FIRST_LABELS
    assert np.array_equal(split.rest.images, digits_split().rest.images)


def test_the_split_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits_split().train = digits_split().rest  # type: ignore[misc]


def test_the_shipped_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000


def test_the_shipped_weights_name_unseen_digits_as_well_as_stated() -> None:
    demo = search_spaces.load("demo")
    model = create(demo.model.name, demo.model.arguments, demo.weights)
    assert accuracy(model, digits_split().rest) >= STATED_ACCURACY


def test_training_twice_gives_equal_weights() -> None:
    digits = few(digits_split().train, 300)
    one, two = (weights_of(train(FEW_STEPS, digits)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_seed_gives_other_weights() -> None:
    digits = few(digits_split().train, 100)
    one = weights_of(train(FEW_STEPS, digits))
    two = weights_of(train(dataclasses.replace(FEW_STEPS, seed=1), digits))
    assert not torch.equal(one["head.weight"], two["head.weight"])


def test_training_leaves_torch_as_it_was() -> None:
    def settings() -> tuple[int, bool, bytes]:
        random = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), random

    before = settings()
    train(FEW_STEPS, few(digits_split().train, 100))
    assert settings() == before


def test_widened_channels_compute_the_same() -> None:
    digits = few(digits_split().rest, 8)
    images = torch.from_numpy(digits.images)
    plain = train(Training(epochs=0, spreads=(0.0, 0.0)), digits)
    wide = train(Training(epochs=0, spreads=(1.0, 2.0)), digits)
    torch.testing.assert_close(wide(images), plain(images), rtol=1e-4, atol=1e-5)
    assert not torch.equal(*(weights_of(m)["blocks.0.norm1.weight"] for m in (wide, plain)))


def test_distorted_images_stay_in_range_and_some_stay_as_they_were() -> None:
    images = torch.from_numpy(digits_split().train.images[:100])
    distorted = distort(images, torch.Generator().manual_seed(0))
    assert distorted.shape == images.shape
    assert distorted.min() >= -1 - 1e-6
    assert distorted.max() <= 1 + 1e-6
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(images, distorted, strict=True)]
    assert 10 < sum(same) < 50


def test_saved_weights_come_back(tmp_path: Path) -> None:
    demo = search_spaces.load("demo").model
    model = train(Training(epochs=0), digits_split().train)
    save(model, tmp_path / "digits.safetensors")
    again = create(demo.name, demo.arguments, tmp_path / "digits.safetensors")
    assert all(torch.equal(weights_of(again)[k], v) for k, v in weights_of(model).items())
    assert [path.name for path in tmp_path.iterdir()] == ["digits.safetensors"]


def test_looking_at_spaces_and_digits_loads_no_torch_and_no_scikit_learn() -> None:
    look = (
        "import sys, search_spaces, search_spaces.demo.digits; search_spaces.load('demo'); "
        "print([name for name in ('torch', 'timm', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
