"""The class that a folder's name means, by a file, a checkpoint, WordNet ids or an order."""

import json
from pathlib import Path

import pytest

from pipeline.data.classes import Labelling, Order, class_map, left_out, read_classes
from pipeline.errors import DataError

TEN = [str(number) for number in range(1, 11)]
ANIMALS = {"cat": 0, "dog": 1, "hen": 2}


class TestClassMap:
    def test_natural_order_is_by_value(self) -> None:
        expected = {str(number): number - 1 for number in range(1, 11)}
        assert class_map(TEN, Labelling(10)) == expected

    def test_alphabetical_order_is_torchvision_s(self) -> None:
        found = class_map(TEN, Labelling(10, order=Order.ALPHABETICAL))
        assert found == dict(zip(["1", "10", *"23456789"], range(10), strict=True))

    def test_given_classes_come_before_any_order(self) -> None:
        found = class_map(["cat", "dog", "hen"], Labelling(3, {"cat": 2, "dog": 0, "hen": 1}))
        assert found == {"cat": 2, "dog": 0, "hen": 1}

    def test_given_classes_are_kept_where_some_folders_are_absent_or_strange(self) -> None:
        assert class_map(["hen", "notes"], Labelling(3, ANIMALS)) == {"hen": 2}

    def test_wordnet_ids_are_kept_beside_a_folder_that_is_no_class(self) -> None:
        found = class_map(["n01440764", "n99999999"], Labelling(1000))
        assert found == {"n01440764": 0}

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["0", "2", "9"], {"0": 0, "2": 2, "9": 9}),
            (["1", "2", "9"], None),  # from 0 or from 1?
            (["0", "2", "10"], None),
            (["00", "02"], None),
            (["0", "cat"], None),
        ],
    )
    def test_numbers_that_count_from_0_are_classes_where_some_are_absent(
        self, names: list[str], expected: dict[str, int] | None
    ) -> None:
        assert class_map(names, Labelling(10)) == expected

    def test_names_that_nothing_knows_tell_nothing(self) -> None:
        assert class_map(["a", "b"], Labelling(3)) is None
        assert class_map(["a", "b", "c"], Labelling(3, ANIMALS)) is None

    def test_a_number_that_the_model_does_not_have_is_refused(self) -> None:
        with pytest.raises(DataError) as raised:
            class_map(["cat"], Labelling(2, ANIMALS))
        assert str(raised.value) == (
            "`classes` must have numbers from 0 to 1, which the model has, but hen has 2."
        )


class TestNumbers:
    DIGITS = tuple("0123456789")

    def test_a_folder_of_another_name_beside_them_is_left_out(self) -> None:
        found = class_map([*self.DIGITS, "drafts"], Labelling(10))
        assert found == {digit: int(digit) for digit in self.DIGITS}
        said = left_out([*self.DIGITS, "drafts"], found, Labelling(10))
        assert said == (
            "1 of 11 images is left out, as its folder is no class of the model (drafts).",
        )

    @pytest.mark.parametrize(
        "names",
        [("1", "2", "drafts"), ("0", "cat", "dog"), ("0", "1", "12"), ("00", "1", "2"), ("0", "²")],
        ids=["from 1", "few", "beyond the model", "padded", "no digit"],
    )
    def test_other_names_do_not_tell(self, names: tuple[str, ...]) -> None:
        assert class_map(names, Labelling(10)) is None


class TestReadClasses:
    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("names.txt", "cat\ndog\nhen\n"),
            ("names.csv", "cat\ndog\nhen\n"),
            ("numbers.csv", "name,class\nhen,2\ncat,0\ndog,1\n"),
            ("swapped.csv", "2,hen\n0,cat\n1,dog\n"),
            ("list.json", '["cat", "dog", "hen"]'),
            ("class_to_idx.json", '{"hen": 2, "cat": 0, "dog": 1}'),
            ("id2label.json", '{"0": "cat", "1": "dog", "2": "hen"}'),
            ("config.json", '{"model_type": "vit", "id2label": {"0":"cat","1":"dog","2":"hen"}}'),
            ("timm.json", '{"architecture": "vit", "label_names": ["cat", "dog", "hen"]}'),
            ("windows.txt", "\ufeffcat\r\ndog\r\nhen\r\n"),
        ],
    )
    def test_every_form_says_the_same(self, tmp_path: Path, file: str, text: str) -> None:
        path = tmp_path / file
        path.write_text(text, encoding="utf-8")
        assert read_classes(str(path)) == ANIMALS

    def test_folders_named_by_numbers_have_their_own(self, tmp_path: Path) -> None:
        path = tmp_path / "class_to_idx.json"
        path.write_text(json.dumps({"1": 0, "10": 1, "2": 2}))
        assert read_classes(str(path)) == {"1": 0, "10": 1, "2": 2}

    def test_orders_are_named(self) -> None:
        assert read_classes("natural") is Order.NATURAL

    @pytest.mark.parametrize(
        ("file", "text", "reason"),
        [
            ("twice.txt", "cat\ncat\n", "'cat' stands twice"),
            ("empty.txt", "\n", "it is empty"),
            ("twice.csv", "cat,0\ncat,1\n", "a name stands twice"),
            ("three.csv", "cat,0,red\n", "each row must have two cells, a name and its number"),
            ("words.csv", "name,class\ncat,first\n", "is not the number of a class"),
            ("broken.json", "{", "Expecting property name"),
            ("half.json", '{"cat": 0.5}', "0.5 is not the number of a class"),
            ("true.json", '{"cat": true}', "True is not the number of a class"),
            ("number.json", "3", "it must be a list of names, or names with numbers"),
            ("deep.json", "[" * 100_000, "maximum recursion depth"),
        ],
    )
    def test_a_file_that_does_not_say_is_refused(
        self, tmp_path: Path, file: str, text: str, reason: str
    ) -> None:
        path = tmp_path / file
        path.write_text(text)
        with pytest.raises(DataError) as raised:
            read_classes(str(path))
        message = str(raised.value)
        assert message.startswith(f"`classes` must have one name for each class, but {path} does")
        assert reason in message

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"natural, alphabetical or a file, but got .*: Is a"):
            read_classes(str(tmp_path))

    def test_a_file_of_bytes_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00cat")
        with pytest.raises(DataError, match="one name for each class"):
            read_classes(str(tmp_path / "names.txt"))


class TestLeftOut:
    def test_a_folder_of_images_says_nothing(self) -> None:
        assert left_out(["", ""], None, Labelling(3)) == ()

    def test_labels_of_which_none_is_left_out_say_nothing(self) -> None:
        assert left_out(["cat", "dog"], {"cat": 0, "dog": 1}, Labelling(3)) == ()

    def test_images_beside_class_folders_are_counted(self) -> None:
        said = left_out(["", "", "x", "cat"], {"cat": 0}, Labelling(3))
        assert said == (
            "3 of 4 images are left out, as their folder is no class of the model (., x).",
        )
