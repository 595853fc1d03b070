"""The package from the outside: what every public name promises."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import pipeline


def test_public_names_are_sorted_and_exist() -> None:
    assert pipeline.__all__ == sorted(pipeline.__all__)
    assert all(hasattr(pipeline, name) for name in pipeline.__all__)


@pytest.mark.parametrize("name", pipeline.__all__)
def test_a_public_name_says_what_it_is_with_an_example_that_runs(name: str) -> None:
    documented = getattr(pipeline, name)
    text = inspect.getdoc(documented)
    assert text
    assert not text.startswith(f"{name}("), "a docstring of one's own, not the dataclass's"
    assert doctest.DocTestParser().get_examples(text), "an example"


def test_the_lazy_table_names_what_editors_see() -> None:
    source = Path(pipeline.__file__).read_text()
    (block,) = re.findall(r"if TYPE_CHECKING:\n(.*?)\n\n", source, flags=re.DOTALL)
    block = block.replace("open_study as open", "open")
    names = re.findall(r"\b(\w+)\b", re.sub(r"from [\w.]+ import", "", block))
    assert set(names) == set(pipeline.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'screen'"):
        pipeline.screen  # noqa: B018
