"""Files that a reader of outside files once failed on, and whole ones: `make fuzz` finds them."""

import pytest

from tests.fuzz.readers import READERS, SEEDS, tried, whole_files

KEPT = [
    pytest.param(path.parent.name, path.read_bytes(), id=f"{path.parent.name}-{path.name}")
    for path in sorted(SEEDS.glob("*/*"))
]


@pytest.mark.parametrize("name", READERS)
def test_whole_files_are_taken(name: str) -> None:
    assert [tried(name, content) for content in whole_files(name)] == [
        None for _ in whole_files(name)
    ]


@pytest.mark.parametrize(("name", "content"), KEPT)
def test_kept_files_are_refused_in_a_few_printable_words(name: str, content: bytes) -> None:
    assert tried(name, content) is not None


def test_each_reader_that_has_seeds_is_known() -> None:
    assert {path.name for path in SEEDS.iterdir()} <= READERS.keys()
