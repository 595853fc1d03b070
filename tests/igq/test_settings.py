"""A setting is written as it is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igq import InvalidArgumentError
from igq.settings import Setting, plain

PARTS = st.none() | st.integers(1, 99)


@given(st.builds(Setting, PARTS, PARTS, PARTS))
def test_a_label_stands_for_its_setting(setting: Setting) -> None:
    if str(setting):
        assert Setting.parse(str(setting)) == setting


@pytest.mark.parametrize("label", ["", "8", "g8w4", "w4 a4", "w4a4g", "x4"])
def test_what_is_no_label_is_refused(label: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"like w4a6g8, but got"):
        Setting.parse(label)


def test_an_allocation_of_groups_is_numbers() -> None:
    assert plain({"fc1": 8, "q": Setting(activation_bits=4)}) == {"fc1": 8, "q": "a4"}
