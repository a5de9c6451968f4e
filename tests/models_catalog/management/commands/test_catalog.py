"""`manage.py catalog`: what an operator types, sees and gets back."""

import io
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from django.core.management import CommandError
from django.core.management.base import BaseCommand

from models_catalog.management.commands.catalog import Command
from models_catalog.models import Model, Provider
from tests import commands

pytestmark = pytest.mark.django_db
run = partial(commands.run, "catalog")

FILE = """
version: 1
providers: {p: {base_url: "https://api.example.com/v1", api_key: sk-secret}}
vendors: {v: {name: Vee}}
models: {m: {vendor: v, routes: [{provider: p}]}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(FILE)
    return path


def test_it_works(file: Path) -> None:
    out, err = run("load", file)
    assert out.splitlines() == ["+ providers.p", "+ vendors.v", "+ models.m", "3 added, 0 changed, 0 removed"]
    assert err == ""
    assert run("load", file)[0] == "nothing to change\n"


def test_dry_run(file: Path) -> None:
    out, _ = run("load", file, "--dry-run")
    assert out.endswith("3 added, 0 changed, 0 removed: a dry run, nothing was written\n")
    assert not Model.objects.exists()


def test_prune(file: Path) -> None:
    run("load", "--builtin")
    assert Model.objects.count() > 30
    run("load", file, "--prune")
    assert [model.slug for model in Model.objects.all()] == ["m"]


def test_builtin(settings) -> None:
    settings.DEMO = False
    run("load", "--builtin")
    assert not Model.objects.filter(slug="kodna-demo").exists()
    settings.DEMO = True
    run("load", "--builtin")
    assert Model.objects.filter(slug="kodna-demo").exists()


def test_export_goes_back_in(file: Path, tmp_path: Path) -> None:
    run("load", file)
    text, _ = run("export")
    assert "sk-secret" not in text
    (tmp_path / "export.yaml").write_text(text)
    assert run("load", tmp_path / "export.yaml", "--prune")[0] == "nothing to change\n"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FILE.encode())))
    run("load", "-")
    assert Model.objects.get().slug == "m"


def test_faults_are_told_one_a_line_and_nothing_is_changed(file: Path) -> None:
    file.write_text("version: 1\nvendors: {v: {name: Vee}}\nmodels: {m: {vendor: w, colour: red}}\n")
    with pytest.raises(CommandError) as caught:
        run("load", file)
    assert str(caught.value).splitlines() == [
        f"{file}: 2 faults, nothing was changed",
        "  models.m.colour: unknown key",
        "  models.m.vendor: no vendor 'w' in this file or the catalog",
    ]
    assert not Model.objects.exists()


def test_the_exit_code_is_1_and_faults_go_to_stderr(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("version: 1\nmodels: {a: 1, a: 2}\n")
    with pytest.raises(SystemExit) as caught:
        Command().run_from_argv(["manage.py", "catalog", "load", str(file)])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "models.a: given twice, in lines 2 and 2" in captured.err


@pytest.mark.parametrize("words", [["load"], ["load", "x", "--builtin"]])
def test_load_takes_a_file_or_the_builtin_one(words: list[str]) -> None:
    with pytest.raises(CommandError, match="give a FILE or --builtin"):
        run(*words)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"nowhere\.yaml: No such file or directory"):
        run("load", tmp_path / "nowhere.yaml")


def test_a_file_without_end() -> None:
    with pytest.raises(CommandError, match="larger than 4 MB"):
        run("load", os.devnull.replace("null", "zero"))


def test_import(tmp_path: Path) -> None:
    config = tmp_path / "api.yaml"
    config.write_text("model_mapping: {small: {provider: ollama, model: llama3}}\ncors: {origins: ['*']}\n")
    out, err = run("import", "--from", "kai", config, "--dry-run")
    assert "+ models.small" in out
    assert err == "not carried over: cors: no counterpart here\n"
    assert not Model.objects.exists()
    run("import", "--from", "kai", config)
    assert Model.objects.get().routes.get().upstream_model == "llama3"


def test_an_import_keeps_what_the_catalog_knows(tmp_path: Path) -> None:
    run("load", "--builtin")
    config = tmp_path / "config.yaml"
    config.write_text("model_list: [{model_name: gpt-4o, litellm_params: {model: gpt-4o, api_key: sk-mine}}]")
    out, _ = run("import", "--from", "litellm", config)
    assert out.splitlines() == [
        "~ providers.openai.api_key: env:OPENAI_API_KEY → (a stored key)",
        "- models.gpt-4o.routes[openrouter: openai/gpt-4o]",
        "0 added, 1 changed, 1 removed",
    ]
    assert Provider.objects.get(slug="openai").supports == ["chat", "responses", "embeddings", "images", "audio"]


def test_an_import_with_faults(tmp_path: Path) -> None:
    config = tmp_path / "llms.json"
    config.write_text('{"providers": }')
    with pytest.raises(CommandError, match="line 1, column 15: not JSON"):
        run("import", "--from", "llms", config)


def test_it_has_help() -> None:
    assert isinstance(Command(), BaseCommand)
    assert "import" in Command().create_parser("manage.py", "catalog").format_help()
