"""The Slurm script and the KubeRay manifest, checked as far as one machine can."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from pipeline.cli import app

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "cluster"
SLURM, RAYJOB = FOLDER / "slurm.sh", FOLDER / "rayjob.yaml"


@pytest.fixture
def job() -> dict[str, Any]:
    return yaml.safe_load(RAYJOB.read_text())


def test_the_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)


def test_slurm_s_settings_come_before_the_first_command() -> None:
    lines = SLURM.read_text().splitlines()
    settings = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    commands = [n for n, line in enumerate(lines) if line and not line.startswith("#")]
    assert settings
    assert max(settings) < min(commands)


def test_the_manifest_is_a_ray_job(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert len(images) == 1, "every node has the same versions"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("path", [SLURM, RAYJOB], ids=lambda path: path.name)
def test_their_search_has_options_that_exist(path: Path) -> None:
    known = {o for p in get_command(app).commands["search"].params for o in p.opts}  # type: ignore[attr-defined]
    text = path.read_text().split("igq search", 2)[-1]
    used = set(re.findall(r"--[a-z]+", text.partition("\n\n")[0].partition("shutdown")[0]))
    assert {"--images", "--cluster", "--out"} <= used <= known
