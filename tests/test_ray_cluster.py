"""`ray_cluster.yaml` is what `ray up` accepts: Ray's own schema says so, without a cluster."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

Config = dict[str, Any]
PATH = Path(__file__).resolve().parent.parent / "ray_cluster.yaml"


@pytest.fixture
def config() -> Config:
    return yaml.safe_load(PATH.read_text())


def validate(config: Config) -> None:
    schema = json.loads((files("ray.autoscaler") / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)


def test_the_cluster_file_is_valid(config: Config) -> None:
    validate(config)


def test_the_cluster_is_a_list_of_machines(config: Config) -> None:
    provider = config["provider"]
    assert provider["type"] == "local"
    assert provider["head_ip"] not in provider["worker_ips"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config: config.update(max_workers="many"), "'many' is not of type 'integer'"),
        (lambda config: config.update(workers=2), "'workers' was unexpected"),
        (lambda config: config["provider"].pop("type"), "'type' is a required property"),
        (lambda config: config["provider"].update(worker_ips="all"), "is not of type 'array'"),
    ],
    ids=["max_workers", "unknown key", "no provider type", "worker_ips"],
)
def test_a_broken_cluster_file_is_refused(
    config: Config, damage: Callable[[Config], object], message: str
) -> None:
    damage(config)
    with pytest.raises(jsonschema.ValidationError, match=message):
        validate(config)
