"""A setting is written as it is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igq import InvalidArgumentError, Kind, Layer, Options, Setting
from igq.settings import plain

PARTS = st.none() | st.integers(1, 99)
FC = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
QUERIES = Layer("q", Kind.QUERY, tokens=6, channels=2, outputs=3)
PATCHES = Layer("patches", Kind.EMBEDDING, tokens=3, channels=4, outputs=5, bits=8)


@given(st.builds(Setting, PARTS, PARTS, PARTS))
def test_what_is_written_stands_for_its_setting(setting: Setting) -> None:
    if str(setting):
        assert Setting.parse(str(setting)) == setting
        assert Setting.parse(setting.plain) == setting


def test_a_number_is_a_number_of_groups() -> None:
    assert Setting.parse(8) == Setting.parse("g8") == Setting(num_groups=8)


@pytest.mark.parametrize("label", ["", "g8w4", "w4 a4", "w4a4g", "x4", "-8"])
def test_a_label_of_another_form_is_refused(label: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"like w4a6g8 or 8, but got"):
        Setting.parse(label)


def test_an_allocation_of_groups_is_numbers() -> None:
    mixed = {"fc1": Setting(num_groups=8), "q": Setting(activation_bits=4)}
    assert plain(mixed) == {"fc1": 8, "q": "a4"}


class TestOptions:
    def test_with_one_number_of_bits_only_groups_are_chosen(self) -> None:
        options = Options((4,), (4,), (1, 2))
        assert not options.searches_bits
        assert [str(s) for s in options.settings([FC])] == ["1", "2"]

    def test_a_layer_has_the_parts_that_it_can_have(self) -> None:
        options = Options((3, 4), (5, 6), (2,))
        settings = {la.name: [str(s) for s in options.settings([la])] for la in (FC, QUERIES)}
        assert settings == {"fc": ["w3a5g2", "w3a6g2", "w4a5g2", "w4a6g2"], "q": ["a5", "a6"]}
        assert [str(s) for s in options.settings([PATCHES])] == ["w3", "w4"]

    def test_layers_that_share_a_setting_have_every_part_that_any_of_them_has(self) -> None:
        assert str(Options((3, 4), (5,), (2,)).settings([PATCHES, QUERIES, FC])[0]) == "w3a5g2"
