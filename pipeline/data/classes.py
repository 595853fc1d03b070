"""The class of the model that a folder's name means.

Names are looked up among the classes that the user or the checkpoint gives, then among ImageNet's
WordNet ids. Where neither knows them, as many folders as the model has classes are its classes, in
natural order or alphabetical order: training code uses either.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from pipeline.data.folders import natural
from pipeline.errors import DataError


class Order(StrEnum):
    """The orders of class folders whose names nothing tells.

    >>> [order.value for order in Order]
    ['natural', 'alphabetical']
    """

    NATURAL = "natural"
    """1, 2, 10: as timm numbers folders."""
    ALPHABETICAL = "alphabetical"
    """1, 10, 2: as torchvision numbers folders."""


LARGEST = 16 * 2**20
"""Bytes of the largest file of classes that is read (our choice)."""


def read_classes(given: str) -> Order | dict[str, int]:
    """Read an order's name, or a file of classes: name -> number.

    The file has a name in each line, in the order of the classes; or is CSV of names and numbers;
    or JSON: a list of names, an object of names and numbers either way round, or a Hugging Face
    configuration that has one as `id2label`.

    Raises:
        DataError: the file cannot be read, or does not say which number a name has.

    >>> read_classes("alphabetical")
    <Order.ALPHABETICAL: 'alphabetical'>
    >>> read_classes("nowhere.txt")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pipeline.errors.DataError: `classes` must be natural, alphabetical or a file, but got nowhere...
    """
    if given in list(Order):
        return Order(given)
    path = Path(given)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it must have at most {LARGEST} bytes")
        return numbered(_content(path))
    except OSError as error:
        raise DataError(
            f"`classes` must be natural, alphabetical or a file, but got {given}: {error.strerror}."
        ) from error
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"`classes` must have one name for each class, but {given} does not: {reason}."
        ) from error


def numbered(content: Any) -> dict[str, int]:
    """Return name -> number for any plain form of a list of classes.

    Raises:
        ValueError: a number is not a whole one, or a name stands twice.

    >>> numbered(["cat", "dog"]) == numbered({"0": "cat", "1": "dog"}) == {"cat": 0, "dog": 1}
    True
    """
    if isinstance(content, Mapping):
        content = content.get("id2label") or content.get("label_names") or content
    if isinstance(content, Mapping):
        if all(isinstance(name, str) and not name.isdecimal() for name in content.values()):
            content = {name: number for number, name in content.items()}
        return {str(name): _whole(number) for name, number in content.items()}
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise ValueError("it must be a list of names, or names with numbers")
    names = [str(name) for name in content]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None or not names:
        raise ValueError("it is empty" if twice is None else f"{twice!r} stands twice")
    return {name: number for number, name in enumerate(names)}


@dataclass(frozen=True)
class Labelling:
    """The classes of a model, and what is known of their names."""

    num_classes: int
    classes: Mapping[str, int] | None = None
    """Name -> class; None where nothing tells."""
    order: Order = Order.NATURAL


def class_map(names: Sequence[str], labelling: Labelling) -> dict[str, int] | None:
    """Return name of a folder -> class of the model; None where the names do not tell.

    Names that are no classes are left out where others are.

    Raises:
        DataError: a class has a number that the model does not have.

    >>> class_map(["2", "10"], Labelling(2)), class_map(["2", "10"], Labelling(3))
    ({'2': 0, '10': 1}, None)
    >>> class_map(["0", "2"], Labelling(3))
    {'0': 0, '2': 2}
    """
    known = named(names, labelling)
    if known is not None:
        return known
    if labelling.classes is None and len(names) == labelling.num_classes:
        ordered = sorted(names)
        if labelling.order is Order.NATURAL:
            ordered.sort(key=natural)
        return {name: number for number, name in enumerate(ordered)}
    return _numbers(names, labelling.num_classes) if labelling.classes is None else None


def by_order(classes: Mapping[str, int] | None, labelling: Labelling) -> dict[str, int] | None:
    """Return name -> class where all classes got theirs by the order of folders alone; else None.

    >>> by_order({"cat": 0, "dog": 1}, Labelling(2)), by_order({"0": 0, "2": 2}, Labelling(3))
    ({'cat': 0, 'dog': 1}, None)
    """
    whole = classes is not None and len(classes) == labelling.num_classes
    if classes is None or not whole or named(classes, labelling) is not None:
        return None
    return dict(classes)


def _numbers(names: Sequence[str], num_classes: int) -> dict[str, int] | None:
    """Read most names as numbers where they count from 0, some classes being absent."""
    plain = [name for name in names if name.isascii() and name.isdecimal()]
    numbers = {name: int(name) for name in plain if str(int(name)) == name}
    if "0" not in numbers or 2 * len(numbers) <= len(names):
        return None
    return numbers if max(numbers.values()) < num_classes else None


def names_of(num_classes: int, noted: Mapping[str, int] | None = None) -> list[str]:
    """Return the names of a model's classes: those noted, ImageNet's 1,000, or numbers.

    >>> names_of(2, {"cat": 0, "dog": 1}), names_of(2), names_of(1000)[1]
    (['cat', 'dog'], ['0', '1'], 'goldfish, Carassius auratus')
    """
    imagenet = ImageNetInfo()
    names = [str(number) for number in range(num_classes)]
    if num_classes == imagenet.num_classes():
        names = [imagenet.index_to_description(number) for number in range(num_classes)]
    for name, number in (noted or {}).items():
        if 0 <= number < num_classes and not _is_wordnet(name):
            names[number] = name
    return names


def _is_wordnet(name: str) -> bool:
    return name[:1] == "n" and name[1:].isdecimal() and len(name) == 9


def named(names: Iterable[str], labelling: Labelling) -> dict[str, int] | None:
    """Return name -> class by the names alone; None where none of them is known.

    Raises:
        DataError: a class has a number that the model does not have.
    """
    if labelling.classes is not None:
        _check_numbers(labelling.classes, labelling.num_classes)
        known: Mapping[str, int] = labelling.classes
    else:
        imagenet = ImageNetInfo()
        if labelling.num_classes != imagenet.num_classes():
            return None
        known = {imagenet.index_to_label_name(i): i for i in range(labelling.num_classes)}
    return {name: known[name] for name in names if name in known} or None


def left_out(
    folders: Sequence[str], classes: Mapping[str, int] | None, labelling: Labelling
) -> tuple[str, ...]:
    """Say which images have no class, or why labels are not used, in a sentence if at all.

    >>> left_out(["cat", "cat", "notes"], {"cat": 0}, Labelling(1))
    ('1 of 3 images is left out, as its folder is no class of the model (notes).',)
    >>> left_out(["cat", "dog"], None, Labelling(3))  # doctest: +NORMALIZE_WHITESPACE
    ('Labels are not used: there are 2 class folders, but the model has 3 classes; --classes FILE
    says which class each folder is.',)
    """
    counts = Counter(folders)
    if set(counts) == {""}:
        return ()
    if classes is None:
        reason = f"there are {len(counts.keys() - {''})} class folders, but the model has "
        reason += f"{labelling.num_classes} classes"
        if labelling.classes is not None:
            reason = "no class folder has the name of a class"
        return (f"Labels are not used: {reason}; --classes FILE says which class each folder is.",)
    without = sorted(counts.keys() - classes.keys())
    if not without:
        return ()
    count = sum(counts[folder] for folder in without)
    shown = ", ".join(folder or "." for folder in without[:3]) + (" ..." * (len(without) > 3))
    verb = "is left out, as its folder is" if count == 1 else "are left out, as their folder is"
    return (f"{count} of {len(folders)} images {verb} no class of the model ({shown}).",)


def _content(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        return json.loads(text)
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    if path.suffix.lower() != ".csv" or all(len(row) == 1 for row in rows):
        return [line.strip() for line in text.splitlines() if line.strip()]
    if rows and not any(cell.strip().isdecimal() for cell in rows[0]):
        rows = rows[1:]  # the names of columns
    if any(len(row) != 2 for row in rows):
        raise ValueError("each row must have two cells, a name and its number")
    swapped = all(a.strip().isdecimal() for a, _ in rows) and not all(
        b.strip().isdecimal() for _, b in rows
    )
    pairs = [(b, a) if swapped else (a, b) for a, b in rows]
    if len({name.strip() for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice")
    return {name.strip(): number.strip() for name, number in pairs}


def _whole(number: object) -> int:
    if isinstance(number, bool) or not (isinstance(number, int) or str(number).isdecimal()):
        raise ValueError(f"{number!r} is not the number of a class")
    return int(str(number))


def _check_numbers(classes: Mapping[str, int], num_classes: int) -> None:
    for name, number in classes.items():
        if not 0 <= number < num_classes:
            raise DataError(
                f"`classes` must have numbers from 0 to {num_classes - 1}, which the model has, "
                f"but {name} has {number}."
            )
