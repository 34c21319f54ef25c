"""What models there are, what their manifests say in words, and the schema that an editor checks them by."""

import json
import tomllib

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.commands.models_list import schema_text
from sidecar.manifest import Card, Manifest
from sidecar.manifest.telling import explained, told
from tests.unit.chart import NEWS2, REPO
from tests.unit.opaque import early_warning, install


def run(*words):
    return CliRunner().invoke(main, ["models", *map(str, words)])


def test_the_models_of_a_folder_are_listed_with_their_newest_digest_and_what_their_cards_lack(tmp_path):
    folder = install(tmp_path)
    (tmp_path / "empty").mkdir()
    done = run("list", "--models-dir", tmp_path, "--json")
    (row,) = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (row["model"], row["versions"], row["kind"], row["problems"]) == (
        "early_warning",
        ["1.0.0"],
        "probability",
        [],
    )
    assert len(row["digest"]) == 64
    assert "intended_use" in row["missing_in_card"]
    assert "34 missing" in run("list", "--models-dir", tmp_path).stdout
    assert folder.is_dir()


def test_a_model_that_cannot_be_used_is_listed_with_the_reason(tmp_path):
    folder = install(tmp_path)
    (folder / "evil.pkl").write_bytes(b"x")
    done = run("list", "--models-dir", tmp_path, "--json")
    assert done.exit_code == 1
    assert "evil.pkl" in json.loads(done.stdout)[0]["problems"][0]
    assert "evil.pkl" in run("list", "--models-dir", tmp_path).stderr


@pytest.mark.parametrize("kind", explained(), ids=lambda kind: kind.__name__)
def test_every_option_of_the_language_has_its_sentence(kind):
    assert set(explained()[kind]) == set(kind.model_fields)


def test_every_input_of_a_model_is_told_with_its_codes_and_what_becomes_of_it_when_it_is_missing():
    done = run("show", "news2")
    assert done.exit_code == 0
    manifest = tomllib.loads((NEWS2 / "manifest.toml").read_text(encoding="utf-8"))
    for name, spec in manifest["features"].items():
        assert spec["label"] in done.stdout
        assert [code for s in spec["from"] for code in s["codes"][:8] if code not in done.stdout] == [], name
    assert "where nothing is charted it is 0; but only if the site turned room_air_when_undocumented on" in done.stdout
    assert "older than 4 h it is stale" in done.stdout
    assert "not when pregnancy is 1, where it is not known the note says" in done.stdout


def test_an_explained_model_of_probabilities_says_until_when_and_what_follows():
    said = "\n".join(told(early_warning().manifest))
    assert "within 24 hours" in said
    assert "review: 20 % or more: review now (local guideline)" in said


def test_a_version_may_be_named_and_an_unknown_one_is_refused():
    assert run("show", "news2/1.0.0").exit_code == 0
    done = run("show", "news2/9.9.9")
    assert done.exit_code == 2
    assert "versions there: " in done.stderr


@pytest.mark.parametrize(("model", "name", "option"), [(Manifest, "manifest", ()), (Card, "card", ("--card",))])
def test_the_published_schema_is_the_one_that_is_enforced(model, name, option):
    published = (REPO / "sidecar" / "manifest" / f"{name}.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(model), f"run: sidecar models schema {' '.join(option)} > sidecar/manifest/{name}.schema.json"  # fmt: skip
    assert run("schema", *option).stdout == published


def test_the_schema_is_closed_and_knows_durations():
    schema = json.loads(schema_text(Manifest))
    tables = [schema, *schema["$defs"].values()]
    assert [
        t["title"] for t in tables if t.get("type") == "object" and t.get("additionalProperties") is not False
    ] == []
    assert schema["properties"]["validity"]["pattern"] == r"^(\d+(?:\.\d+)?)([smhd])$"
