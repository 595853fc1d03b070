"""The promises of SECURITY.md that have no better place."""

import codecs
import io
import json
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from igq import UnsupportedModelError
from igq.vit import Architecture, create, remake
from pipeline.cli import app
from pipeline.cli.options import write_plainly
from pipeline.tracking.uris import refusal, tracked_at, without_password
from tests.tiny import TINY

NAME = "vit_tiny_patch16_224"
SECRET = "postgresql://me:sec:ret@host/mlflow"


class TestSizes:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("img_size", 10**6),
            ("img_size", [8, 10**9]),
            ("depth", 10**9),
            ("embed_dim", 10**12),
            ("num_classes", 10**12),
            ("in_chans", 10**6),
            ("in_chans", 0),
            ("patch_size", [0, 2]),
            ("mlp_ratio", float("inf")),
            ("mlp_ratio", float("nan")),
        ],
    )
    def test_an_absurd_argument_is_refused_before_anything_is_allocated(
        self, key: str, value: object
    ) -> None:
        for make in (lambda a: create(NAME, a), lambda a: remake(Architecture(NAME, a))):
            with pytest.raises(UnsupportedModelError, match=f"must be numbers .* but got {key}="):
                make(TINY | {key: value})


class TestSecrets:
    def test_a_password_is_in_no_message(self) -> None:
        error = refusal(SECRET, ConnectionError(f"no route to {SECRET}"))
        assert "ret" not in str(error).replace("secret", "")
        assert "me:" not in str(error)

    def test_it_is_in_no_file_of_a_study(self, tmp_path: Path) -> None:
        location = without_password(f"{SECRET}, experiment igq")
        (tmp_path / "tracking.json").write_text(json.dumps({"location": location}))
        assert tracked_at(tmp_path) == "postgresql://host/mlflow"


class TestServers:
    def test_they_listen_on_this_machine_unless_told(self) -> None:
        commands = get_command(app).commands  # type: ignore[attr-defined]
        host = next(option for option in commands["ui"].params if option.name == "host")
        assert host.default == "127.0.0.1"


class TestTerminals:
    def test_one_that_has_ascii_alone_gets_plain_characters(self) -> None:
        write_plainly()
        text = "0.5 ± 0.1 ─┼─ …  → 頁"
        written = codecs.encode(text, "ascii", "plainly")
        assert written == b"0.5 +/- 0.1 --- ...  -> ?"

    @pytest.mark.parametrize("errors", ["strict", "surrogateescape", "backslashreplace"])
    def test_whatever_python_does_in_its_locale(
        self, monkeypatch: pytest.MonkeyPatch, errors: str
    ) -> None:
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding="ascii", errors=errors)
        monkeypatch.setattr(sys, "stdout", stream)
        write_plainly()
        print("0.5 ± 0.1", flush=True)
        assert written.getvalue() == b"0.5 +/- 0.1\n"

    def test_a_person_s_own_wish_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding="ascii", errors="replace")
        monkeypatch.setattr(sys, "stdout", stream)
        write_plainly()
        print("0.5 ± 0.1", flush=True)
        assert written.getvalue() == b"0.5 ? 0.1\n"
