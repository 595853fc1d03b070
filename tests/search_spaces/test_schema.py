"""The schema of search spaces: accepted fields, and one readable message for all others."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import search_spaces
from search_spaces import (
    BopsBudget,
    Budget,
    BytesSize,
    LatencyBudget,
    OverheadBudget,
    SearchSpace,
    SearchSpaceError,
    UniformBudget,
    WeightBitsSize,
)
from search_spaces.budgets import parse_budget
from search_spaces.messages import problems

ENOUGH: dict[str, Any] = {
    "model": "vit_tiny_patch16_224",
    "weight_bits": 4,
    "activation_bits": 4,
    "num_groups": [2, 4, 8],
    "budget": {"uniform": 4},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**ENOUGH, **changes}), encoding="utf-8")
    return path


def refusal(path: Path) -> list[str]:
    with pytest.raises(SearchSpaceError) as caught:
        search_spaces.load(path)
    first, *said = str(caught.value).splitlines()
    assert first == "mine.yaml is not a search space:"
    return [problem.strip() for problem in said]


def test_a_users_own_file_needs_five_keys_and_gets_the_defaults(tmp_path: Path) -> None:
    space = search_spaces.load(write(tmp_path))
    assert space == SearchSpace.model_validate({**ENOUGH, "name": "mine"})
    assert space.num_groups == (2, 4, 8)
    counts = space.calibration_images, space.search_images, space.validation_images
    assert (*counts, space.sensitivity_images, space.trials) == (32, 64, 1000, 32, 100)


def test_a_users_own_file_may_be_named_by_a_string(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert search_spaces.load(str(path)) == search_spaces.load(path)


def test_a_model_may_have_arguments(tmp_path: Path) -> None:
    model = {"name": "vit_tiny_patch16_224", "arguments": {"img_size": 8, "depth": 4}}
    assert search_spaces.load(write(tmp_path, model=model)).model.model_dump() == model


def test_weights_are_found_beside_the_file_and_not_beside_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, weights="sub/my.safetensors")
    monkeypatch.chdir(tmp_path)
    assert search_spaces.load("mine.yaml").weights == tmp_path / "sub" / "my.safetensors"


def test_absolute_weights_stay(tmp_path: Path) -> None:
    weights = tmp_path.parent / "my.safetensors"
    assert search_spaces.load(write(tmp_path, weights=str(weights))).weights == weights


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        ("{uniform: 8}", UniformBudget(uniform=8)),
        ("{bops: 2.1e10}", BopsBudget(bops=2.1e10)),
        ("{bops: 21000000000}", BopsBudget(bops=2.1e10)),
        ("{overhead: 3 %}", OverheadBudget(overhead=0.03)),
        ("{overhead: 3%}", OverheadBudget(overhead=0.03)),
        ("{overhead: 0.03}", OverheadBudget(overhead=0.03)),
        ("{overhead: 2.5 %}", OverheadBudget(overhead=0.025)),
    ],
)
def test_a_budget_of_bops_is_written_in_one_of_three_ways(
    tmp_path: Path, written: str, budget: search_spaces.Budget
) -> None:
    assert search_spaces.load(write(tmp_path, budget=yaml.safe_load(written))).budget == budget


@pytest.mark.parametrize(
    ("written", "latency", "words"),
    [
        ("14 ms", 14.0, "latency 14 ms"),
        ("14.5ms", 14.5, "latency 14.5 ms"),
        ("uniform:8", "uniform:8", "latency uniform:8"),
    ],
)
def test_a_latency_is_a_time_or_a_setting_and_its_table_lies_beside_the_file(
    tmp_path: Path, written: str, latency: float | str, words: str
) -> None:
    budget = {"latency": written, "table": "sub/latency.json"}
    space = search_spaces.load(write(tmp_path, budget=budget))
    table = tmp_path / "sub" / "latency.json"
    assert space.budget == LatencyBudget(latency=written, table=table)
    assert isinstance(space.budget, LatencyBudget)
    assert (space.budget.latency, str(space.budget)) == (latency, words)
    assert SearchSpace.model_validate(space.model_dump(mode="json")) == space
    assert parse_budget(f"latency:{written}") == LatencyBudget(latency=written)


@pytest.mark.parametrize("written", ["14", 14, "14 s", "0 ms", "-1 ms", "nan ms", "uniform:0", "x"])
def test_another_latency_is_refused_with_its_value(tmp_path: Path, written: object) -> None:
    with pytest.raises(SearchSpaceError, match=r"`budget\.latency` must be .*budget\.latency="):
        search_spaces.load(write(tmp_path, budget={"latency": written, "table": "latency.json"}))


def test_a_latency_needs_its_table_and_most_bops_need_a_latency(tmp_path: Path) -> None:
    with pytest.raises(
        SearchSpaceError, match=r"`budget\.table` must be the file that igq profile"
    ):
        search_spaces.load(write(tmp_path, budget={"latency": "14 ms"}))
    with pytest.raises(SearchSpaceError, match="`max_bops` must stand beside a budget of latency"):
        search_spaces.load(write(tmp_path, budget={"uniform": 8}, max_bops={"uniform": 8}))
    budget = {"latency": "14 ms", "table": "latency.json"}
    space = search_spaces.load(write(tmp_path, budget=budget, max_bops={"uniform": 4}))
    assert space.max_bops == UniformBudget(uniform=4)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("3.2 MB", BytesSize(bytes=3_200_000)),
        ("3MB", BytesSize(bytes=3_000_000)),
        ("900 kB", BytesSize(bytes=900_000)),
        ("1 GB", BytesSize(bytes=10**9)),
        ("{bytes: 3200000}", BytesSize(bytes=3_200_000)),
        ("{weight_bits: 4}", WeightBitsSize(weight_bits=4)),
    ],
)
def test_a_size_is_bytes_with_a_unit_or_bits_of_all_weights(
    tmp_path: Path, written: str, size: search_spaces.Size
) -> None:
    space = search_spaces.load(write(tmp_path, max_size=yaml.safe_load(written)))
    assert space.max_size == size
    dumped = yaml.safe_load(yaml.safe_dump(space.model_dump(mode="json")))
    assert SearchSpace.model_validate(dumped) == space


BUDGET_KEYS = "`budget` must have exactly one of the keys uniform, bops, overhead, latency"
SIZE = "`max_size` must be a size such as 3.2 MB, or {weight_bits: 4}"
UNITS = "`max_size` must be a size in B, kB, MB or GB, such as 3.2 MB"
SHARE = "`budget.overhead` must be a share, more than 0 and at most 1, such as 3 % or 0.03"
CHOICE = "`num_groups` must be at least two numbers, strictly increasing"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weight_bits": 1}, "`weight_bits` must be between 2 and 8, but got weight_bits=1."),
        (
            {"activation_bits": 9},
            "`activation_bits` must be between 2 and 8, but got activation_bits=9.",
        ),
        (
            {"weight_bits": True},
            "`weight_bits` must be a valid integer, but got weight_bits=True.",
        ),
        (
            {"weight_bits": "4"},
            "`weight_bits` must be a valid integer, but got weight_bits='4'.",
        ),
        ({"num_groups": [4]}, f"{CHOICE}, but got num_groups=[4]."),
        ({"num_groups": [4, 2]}, f"{CHOICE}, but got num_groups=[4, 2]."),
        ({"num_groups": [2, 2]}, f"{CHOICE}, but got num_groups=[2, 2]."),
        ({"num_groups": 4}, "`num_groups` must be a list, but got num_groups=4."),
        (
            {"num_groups": [0, 8]},
            "`num_groups[0]` must be between 1 and 256, but got num_groups[0]=0.",
        ),
        (
            {"num_groups": [8, 257]},
            "`num_groups[1]` must be between 1 and 256, but got num_groups[1]=257.",
        ),
        (
            {"num_groups": [1, "all"]},
            "`num_groups[1]` must be a valid integer, but got num_groups[1]='all'.",
        ),
        (
            {"weight_method": "best"},
            "`weight_method` must be 'nearest' or 'corrected', but got weight_method='best'.",
        ),
        ({"trials": 0}, "`trials` must be at least 1, but got trials=0."),
        ({"search_images": -1}, "`search_images` must be at least 1, but got search_images=-1."),
        ({"budget": 8}, f"{BUDGET_KEYS}, but got budget=8."),
        ({"budget": {}}, f"{BUDGET_KEYS}, but got budget={{}}."),
        ({"budget": {"groups": 8}}, f"{BUDGET_KEYS}, but got budget={{'groups': 8}}."),
        (
            {"budget": {"bops": 1, "uniform": 8}},
            f"{BUDGET_KEYS}, but got budget={{'bops': 1, 'uniform': 8}}.",
        ),
        (
            {"budget": {"uniform": 1}},
            "`budget.uniform` must be at least the smallest of `num_groups`, 2, "
            "but got budget.uniform=1.",
        ),
        (
            {"budget": {"uniform": 2.5}},
            "`budget.uniform` must be a valid integer, but got budget.uniform=2.5.",
        ),
        (
            {"budget": {"bops": 0}},
            "`budget.bops` must be positive and finite, but got budget.bops=0.",
        ),
        ({"budget": {"bops": "few"}}, "`budget.bops` must be a number, but got budget.bops='few'."),
        ({"budget": {"bops": True}}, "`budget.bops` must be a number, but got budget.bops=True."),
        (
            {"budget": {"bops": float("nan")}},
            "`budget.bops` must be positive and finite, but got budget.bops=nan.",
        ),
        ({"budget": {"overhead": 3}}, f"{SHARE}, but got budget.overhead=3."),
        ({"budget": {"overhead": "0 %"}}, f"{SHARE}, but got budget.overhead='0 %'."),
        (
            {"budget": {"overhead": "-3 %"}},
            "`budget.overhead` must be a number, but got budget.overhead='-3 %'.",
        ),
        ({"max_size": 3}, f"{SIZE}, but got max_size=3."),
        ({"max_size": {"groups": 3}}, f"{SIZE}, but got max_size={{'groups': 3}}."),
        ({"max_size": "3"}, f"{UNITS}, but got max_size='3'."),
        ({"max_size": "3 MiB"}, f"{UNITS}, but got max_size='3 MiB'."),
        ({"max_size": "0 MB"}, f"{UNITS}, but got max_size='0 MB'."),
        (
            {"max_size": {"bytes": 0}},
            "`max_size.bytes` must be at least 1, but got max_size.bytes=0.",
        ),
        (
            {"max_size": {"weight_bits": 9}},
            "`max_size.weight_bits` must be between 2 and 8, but got max_size.weight_bits=9.",
        ),
        (
            {"max_size": {"weight_bits": 3}},
            "`max_size.weight_bits` must be at least the smallest of `weight_bits`, 4, "
            "but got max_size.weight_bits=3.",
        ),
        (
            {"model": 3},
            "`model` must be a timm name, or a mapping with `name` and `arguments`, "
            "but got model=3.",
        ),
        ({"model": ""}, "`model.name` must be the name of a timm model, but got model.name=''."),
        ({"model": {"arguments": {}}}, "`model.name` must be given, but got nothing."),
        (
            {"model": {"name": "vit", "arguments": {"checkpoint_path": "x.pth"}}},
            "`model.arguments` must name no weights, which are named by `weights`, "
            "but got model.arguments={'checkpoint_path': 'x.pth'}.",
        ),
        (
            {"model": {"name": "vit", "arguments": {"when": date(2024, 1, 2)}}},
            "`model.arguments.when` must be plain YAML: numbers, strings, lists, mappings, "
            "but got model.arguments.when=datetime.date(2024, 1, 2).",
        ),
        (
            {"name": "other"},
            "`name` must be left out, it is the file's name, but got name='other'.",
        ),
    ],
    ids=str,
)
def test_a_broken_rule_is_told_with_the_value(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    assert refusal(write(tmp_path, **changes)) == [problem]


def test_an_unknown_key_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    problem, keys = refusal(write(tmp_path, wieghts="a"))
    assert problem == "every key must be a known one, but got wieghts='a'."
    assert keys.startswith("The keys are description, model, weights, images, ")
    assert keys.endswith(", validation_images, sensitivity_images, trials.")


@pytest.mark.parametrize("key", ENOUGH)
def test_a_missing_key_is_told(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in ENOUGH.items() if k != key}))
    assert refusal(path) == [f"`{key}` must be given, but got nothing."]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, weight_bits=1, trials=0)) == [
        "`weight_bits` must be between 2 and 8, but got weight_bits=1.",
        "`trials` must be at least 1, but got trials=0.",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file must map keys to values, but got None."),
        ("- 1", "the file must map keys to values, but got [1]."),
        ("1: 2", "the file must map keys to values, but got {1: 2}."),
        (
            "model: [vit\n",
            "the file must be YAML, but line 2: expected ',' or ']', but got '<stream end>'.",
        ),
        (
            "model: !!python/object/apply:os.getcwd []",
            "the file must be YAML, but line 1: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'.",
        ),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert refusal(path) == [problem]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    problem = "the file must be readable, but got No such file or directory."
    assert refusal(tmp_path / "mine.yaml") == [problem]


def test_a_space_is_frozen() -> None:
    space = search_spaces.load("demo")
    with pytest.raises(ValidationError, match="frozen"):
        space.trials = 1  # type: ignore[misc]


bits = st.integers(2, 8)
num_groups = st.sets(st.integers(1, 256), min_size=2).map(sorted)
positive = st.floats(0, 1, exclude_min=True)


@given(bits, bits, num_groups, positive)
def test_what_is_dumped_loads_as_the_same_space(
    weight_bits: int, activation_bits: int, num_groups: list[int], overhead: float
) -> None:
    changes = {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "num_groups": num_groups,
        "budget": {"overhead": overhead},
    }
    space = SearchSpace.model_validate({**ENOUGH, **changes, "name": "any"})
    written = yaml.safe_dump(space.model_dump(mode="json"))
    assert SearchSpace.model_validate(yaml.safe_load(written)) == space


@given(
    st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers())),
    st.sampled_from(list(ENOUGH)),
)
def test_whatever_is_written_is_loaded_or_refused_readably(value: Any, key: str) -> None:
    try:
        SearchSpace.model_validate({**ENOUGH, key: value, "name": "any"})
    except ValidationError as error:
        *said, last = problems(error)
        assert all(" must " in problem and "but got" in problem for problem in said)
        assert (" must " in last and "but got" in last) or re.fullmatch(r"and \d+ more\.", last)


class TestTied:
    @pytest.mark.parametrize("tied", ["block", "kind", None])
    def test_layers_are_tied_by_block_or_kind_or_not(
        self, tmp_path: Path, tied: str | None
    ) -> None:
        assert search_spaces.load(write(tmp_path, tied=tied)).tied == tied

    def test_other_ties_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SearchSpaceError, match=r"`tied` must be .*'block' or 'kind'"):
            search_spaces.load(write(tmp_path, tied="head"))


class TestBudgetsOnACommandLine:
    @pytest.mark.parametrize(
        ("text", "budget"),
        [
            ("uniform:6", UniformBudget(uniform=6)),
            ("bops:2.1e10", BopsBudget(bops=2.1e10)),
            ("overhead:3%", OverheadBudget(overhead=0.03)),
            ("overhead: 0.03", OverheadBudget(overhead=0.03)),
        ],
    )
    def test_each_kind_can_be_written(self, text: str, budget: Budget) -> None:
        assert parse_budget(text) == budget

    @pytest.mark.parametrize(
        "text", ["6", "uniform", "groups:6", "uniform:0", "bops:many", "bops:[1]"]
    )
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(SearchSpaceError, match=r"must be"):
            parse_budget(text)


class TestMixed:
    def test_bits_may_be_lists(self, tmp_path: Path) -> None:
        space = search_spaces.load(
            write(tmp_path, weight_bits=[3, 4], budget={"uniform": "w4a4g8"})
        )
        assert space.options.searches_bits
        assert (space.weight_bits, space.base_bits) == ((3, 4), (4, 4))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"weight_bits": [4]}, r"`weight_bits` must be at least two numbers"),
            ({"weight_bits": [4, 3]}, r"`weight_bits` must be .* strictly increasing"),
            ({"weight_bits": [4, 9]}, r"`weight_bits` must be between 2 and 8"),
            ({"weight_bits": [3, 4]}, r"`budget` must be bops or uniform with bits"),
            ({"budget": {"uniform": "w4a4g8"}}, r"`budget.uniform` must be a number of groups"),
            ({"budget": {"uniform": "g8"}}, r"`budget.uniform` must be .*w4a4g8"),
        ],
        ids=["one", "falling", "too many", "no bits in the budget", "bits in it", "half"],
    )
    def test_what_makes_no_sense_is_refused(
        self, tmp_path: Path, changes: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(SearchSpaceError, match=said):
            search_spaces.load(write(tmp_path, **changes))
