"""Latency tables: sums of operators, and everything of which a file is refused."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from igq import Allocation, Kind, Layer, Options, ProfileError, Rotation, Scheme, Setting, Unit
from igq.costs import (
    Machine,
    Operator,
    Profile,
    Timing,
    latency_table,
    profile_json,
    profile_of,
)
from igq.costs.latency import MOST_MS, rising, whole_setting
from igq.costs.ties import Tie

FC1 = Layer("blocks.0.fc1", Kind.LINEAR, tokens=2, channels=3, outputs=5)
FC2 = replace(FC1, name="blocks.1.fc1")
SOFTMAX = Layer("blocks.0.softmax", Kind.SOFTMAX, tokens=6, channels=3, outputs=2, heads=2)
QUERY = Layer("blocks.0.q", Kind.QUERY, tokens=6, channels=2, outputs=3, heads=2)
HEAD = Layer("head", Kind.HEAD, tokens=1, channels=3, outputs=4, bits=8)
LAYERS = (FC1, QUERY, SOFTMAX, FC2, HEAD)
GROUPS = Options((4,), (4,), (1, 2, 4))
BITS = Options((4, 8), (4,), (1, 2))


def timings(**medians: float) -> dict[Setting, Timing]:
    return {Setting.parse(label): Timing(ms, 0.01) for label, ms in medians.items()}


PROFILE = Profile(
    "here",
    Machine("AMD EPYC", "avx512", 1),
    "0.2.0",
    "tiny",
    Scheme.BEST,
    (
        Operator(
            Kind.LINEAR,
            (2, 3, 5),
            ("blocks.0.fc1", "blocks.1.fc1"),
            timings(w4a4g1=0.25, w4a4g2=0.5, w8a4g1=0.125, w8a4g2=0.75),
        ),
        Operator(Kind.SOFTMAX, (6, 3, 2), ("blocks.0.softmax",), timings(a4g1=1.0, a4g4=2.0)),
        Operator(Kind.HEAD, (1, 3, 4), ("head",), timings(w4a8=0.0625, w8a8=0.0625)),
    ),
    rest_ms=3.0,
)


def table(layers: tuple[Layer, ...] = LAYERS, options: Options = GROUPS, **more: Any) -> Any:
    return latency_table(PROFILE, layers, Scheme.BEST, options, **more)


class TestTable:
    def test_an_allocation_costs_the_sum_of_its_operators_in_whole_nanoseconds(self) -> None:
        made = table()
        allocation = {"blocks.0.fc1": 2, "blocks.0.softmax": 4, "blocks.1.fc1": 1}
        cost = made.of(Allocation.of(allocation))
        assert made.unit is Unit.NANOSECONDS
        assert (cost, type(cost)) == (round(1e6 * (3 + 0.0625 + 0.5 + 2 + 0.25)), int)
        assert made.unit.words(cost) == "5.81 ms"

    def test_a_setting_that_was_not_measured_is_not_offered(self) -> None:
        made = table()
        assert list(map(str, made.settings("blocks.0.softmax"))) == ["1", "4"]
        assert list(map(str, made.settings("blocks.0.fc1"))) == ["1", "2"]

    def test_layers_that_share_a_setting_are_offered_what_all_of_them_have(self) -> None:
        made = table(tie=Tie.BLOCK)
        assert {s.num_groups: c for s, c in made.layers["blocks.0"].items()} == {1: 1_250_000}
        assert made.fixed == 3_062_500

    def test_where_bits_are_chosen_every_operator_is_and_q_costs_nothing(self) -> None:
        made = table(options=BITS, base_bits=(4, 4))
        assert made.fixed == 3_000_000
        assert made.layers["head"] == {Setting(4): 62_500, Setting(8): 62_500}
        assert made.layers["blocks.0.q"] == {Setting(None, 4): 0}

    def test_no_setting_is_cheaper_than_the_one_of_fewest_bits_and_groups(self) -> None:
        row = table(options=BITS, base_bits=(4, 4)).layers["blocks.0.fc1"]
        assert row[Setting(8, 4, 1)] == row[Setting(4, 4, 1)] == 250_000
        assert row[Setting(8, 4, 2)] == 750_000

    def test_groups_that_noise_has_out_of_order_share_their_mean(self) -> None:
        noisy = timings(w4a4g1=0.5, w4a4g2=0.25, w4a4g4=1.0)
        operators = (replace(PROFILE.operators[0], timings=noisy), *PROFILE.operators[1:])
        made = latency_table(replace(PROFILE, operators=operators), LAYERS, Scheme.BEST, GROUPS)
        assert list(made.layers["blocks.0.fc1"].values()) == [375_000, 375_000, 1_000_000]

    def test_a_layer_without_a_measured_setting_is_refused(self) -> None:
        with pytest.raises(ProfileError, match=r"a setting of the space for blocks\.0\.fc1"):
            table(options=Options((4,), (4,), (3, 5)))

    def test_bits_of_the_rest_that_were_not_measured_are_refused(self) -> None:
        bare = replace(PROFILE.operators[2], timings={})
        profile = replace(PROFILE, operators=(*PROFILE.operators[:2], bare))
        with pytest.raises(ProfileError, match="must have w4a4 measured"):
            latency_table(profile, LAYERS, Scheme.BEST, GROUPS)

    def test_codes_of_weights_do_not_change_it_but_other_quantizers_are_refused(self) -> None:
        nearest = replace(Scheme.BEST, weights=Scheme.PAPER.weights)
        assert latency_table(PROFILE, LAYERS, nearest, GROUPS) == table()
        rotated = replace(Scheme.BEST, rotation=Rotation.ALL)
        with pytest.raises(ProfileError, match="must be measured with the model's scheme"):
            latency_table(PROFILE, LAYERS, rotated, GROUPS)

    @pytest.mark.parametrize(
        ("layers", "said"),
        [
            (LAYERS[:-1], "only the table of tiny has head"),
            ((*LAYERS, replace(FC1, name="fc")), "only the model has fc"),
            ((replace(FC1, tokens=4), *LAYERS[1:]), r"whose blocks\.0\.fc1 is linear \(4, 3, 5\)"),
            ((replace(FC1, kind=Kind.HEAD), *LAYERS[1:]), "has linear"),
        ],
    )
    def test_a_table_of_another_model_is_refused(
        self, layers: tuple[Layer, ...], said: str
    ) -> None:
        with pytest.raises(ProfileError, match=said):
            table(layers)


def test_a_profile_comes_back_from_json_as_it_was() -> None:
    fitted = replace(
        PROFILE.operators[0], timings={Setting(4, 4, 3): Timing(0.5, 0.0, fitted=True)}
    )
    for profile in (PROFILE, replace(PROFILE, operators=(fitted,))):
        assert profile_of(json.loads(json.dumps(profile_json(profile)))) == profile


def changed(place: tuple[str | int, ...], value: Any) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        inner = content
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        return content

    return change


MEDIAN = ("operators", 0, "timings", "w4a4g1", "median_ms")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(("schema",), 2), "`schema` of a latency table must be 1, but got 2"),
        (changed(("schema",), True), "`schema` .* but got True"),
        (changed(("more",), 1), "a latency table must have .* but more is unknown"),
        (changed(("target",), 3), "`target` must be a text, but got 3"),
        (changed(("machine",), []), r"`machine` must be a mapping, but got \[\]"),
        (changed(("machine", "threads"), 0), r"`machine\.threads` must be a whole number from 1"),
        (changed(("scheme", "inputs"), "rows"), r"`scheme\.inputs` must be one of channels"),
        (changed(("rest_ms",), -1), "`rest_ms` must be a time from 0 ms up, but got -1"),
        (changed(("rest_ms",), "1"), "`rest_ms` must be a time from 0 ms up, but got '1'"),
        (changed(MEDIAN, float("nan")), r"w4a4g1\.median_ms` must be a time .* but got nan"),
        (changed(MEDIAN, float("inf")), "must be a time from 0 ms up, but got inf"),
        (changed(MEDIAN, -0.5), "must be a time from 0 ms up, but got -0.5"),
        (changed(MEDIAN, None), "must be a time from 0 ms up, but got None"),
        (changed(MEDIAN, True), "must be a time from 0 ms up, but got True"),
        (changed(MEDIAN[:-1], {"median_ms": 1.0}), "spread_ms is missing"),
        (changed((*MEDIAN[:-1], "fitted"), 1), "must be true or false, but got 1"),
        (changed((*MEDIAN[:3], "w4x"), {}), "must be written like w4a6g8"),
        (changed(("operators", 0, "kind"), "query"), "must be one of embedding, linear"),
        (changed(("operators", 0, "shape"), [2, 3]), "must be three numbers"),
        (changed(("operators", 0, "shape", 0), 0), "must be a whole number from 1, but got 0"),
        (changed(("operators", 0, "layers"), "fc"), "must be a list of at most"),
        (changed(("operators", 0, "layers", 1), "head"), "each layer once, but has head twice"),
        (changed(("operators",), [3]), r"`operators\[0\]` must be a mapping, but got 3"),
        (lambda content: [content], "a latency table must be a mapping"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_by_rule_and_value(
    change: Callable[[Any], Any], said: str
) -> None:
    content = change(copy.deepcopy(profile_json(PROFILE)))
    with pytest.raises(ProfileError, match=said):
        profile_of(content)


def test_the_longest_time_that_is_believed_is_a_time() -> None:
    assert Timing(MOST_MS, 0.0).median_ms == MOST_MS
    with pytest.raises(ProfileError, match="must be a time"):
        Timing(2 * MOST_MS, 0.0)


def test_each_field_is_needed() -> None:
    for name in profile_json(PROFILE):
        content = {key: value for key, value in profile_json(PROFILE).items() if key != name}
        with pytest.raises(ProfileError, match=name):
            profile_of(content)


@pytest.mark.parametrize(
    ("layer", "setting", "whole"),
    [
        (FC1, Setting(), "w4a6g1"),
        (FC1, Setting(3, 5, 4), "w3a5g4"),
        (SOFTMAX, Setting(num_groups=2), "a6g2"),
        (HEAD, Setting(), "w4a8"),
    ],
)
def test_an_open_part_of_a_setting_is_the_base_s_and_one_group(
    layer: Layer, setting: Setting, whole: str
) -> None:
    assert str(whole_setting(layer, setting, (4, 6))) == whole


def test_neighbours_that_share_a_mean_share_it_with_a_greater_one_before_them() -> None:
    assert rising([4, 5, 2]) == [3, 3, 3]  # 5 and 2 share 3.5, below 4
