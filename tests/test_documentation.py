"""README and docs say what is so: their code runs, their commands and files are there."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from pipeline.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCS = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_in_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"Score\(kl=\d+\.\d+, top1=None\)\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_readme(command: str) -> None:
    assert any(f"igq {command}" in block for block in blocks("sh"))


def test_commands_in_readme_exist_with_their_options() -> None:
    lines = " ".join(blocks("sh")).replace("\\\n", " ").splitlines()
    calls = [line.split("#")[0].split() for line in lines if line.strip().startswith("igq ")]
    assert calls
    for _, command, *words in calls:
        known = {
            option for p in COMMANDS[command].params for option in (*p.opts, *p.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= known


def test_make_targets_in_readme_exist() -> None:
    targets = set(re.findall(r"make (\w+) ", " ".join(blocks("sh"))))
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


@pytest.mark.parametrize("file", ["README.md", "docs/decisions.md"])
def test_links_lead_somewhere(file: str) -> None:
    path = ROOT / file
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_benchmarks_that_are_named_exist() -> None:
    named = set(re.findall(r"python -m (benchmarks\.\w+)", README + DOCS))
    assert named
    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in named)


def test_no_number_is_still_to_be_filled_in() -> None:
    assert re.findall(r"@[A-Z0-9]+@", README + DOCS) == []
