"""Means of settings by kind and by depth."""

from igq import Allocation
from pipeline.study.shape import means_by_kind, means_by_third


def test_means_by_kind_and_third_of_a_model_of_four_blocks() -> None:
    groups = {"fc1": (8, 8, 2, 4), "fc2": (4, 4, 4, 1)}
    allocation = Allocation.of(
        {f"blocks.{b}.mlp.{kind}": groups[kind][b] for b in range(4) for kind in groups}
    )
    assert means_by_kind(allocation) == {"groups_by_kind.fc1": 5.5, "groups_by_kind.fc2": 3.25}
    assert means_by_third(allocation) == {  # blocks 0 and 1, block 2, block 3
        "groups_by_depth.1_first": 6.0,
        "groups_by_depth.2_middle": 3.0,
        "groups_by_depth.3_last": 2.5,
    }


def test_bits_have_means_of_their_own_where_they_are_searched() -> None:
    allocation = Allocation.of({"blocks.0.q": "a4", "blocks.0.fc1": "w2a4g8"})
    assert means_by_kind(allocation) == {
        "bits_by_kind.q": 4.0,
        "weight_bits_by_kind.fc1": 2.0,
        "bits_by_kind.fc1": 4.0,
        "groups_by_kind.fc1": 8.0,
    }
