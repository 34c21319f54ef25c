"""Cards as people read them: complete for every shipped model, true to their source, and text, never markup."""

import html
import html.parser

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.commands.models_card import rendered
from sidecar.manifest import load, missing_mandatory
from sidecar.manifest.attributes import ATTRIBUTES
from sidecar.manifest.card import load_card, parse_card
from tests.unit.chart import REPO
from tests.unit.manifest.test_card import text
from tests.unit.opaque import early_warning, install

SHIPPED = sorted(p.parent for p in REPO.glob("models/*/*/manifest.toml"))


def name_of(folder):
    return f"{folder.parent.name}/{folder.name}"


@pytest.mark.parametrize("folder", SHIPPED, ids=name_of)
def test_a_shipped_model_has_a_complete_card(folder):
    assert missing_mandatory(load_card(folder / "card.toml")) == ()


@pytest.mark.parametrize("folder", SHIPPED, ids=name_of)
def test_the_card_in_the_folder_is_the_one_that_the_command_prints(folder):
    written = rendered(load_card(folder / "card.toml"), load(folder / "manifest.toml"), html=False)
    again = f"run: sidecar models card {name_of(folder)} > {folder.name}/card.md; sidecar models seal {folder}"
    assert (folder / "card.md").read_text(encoding="utf-8") == written, again


def test_the_command_prints_markdown_and_a_page():
    plain = CliRunner().invoke(main, ["models", "card", "news2"])
    page = CliRunner().invoke(main, ["models", "card", "news2", "--html"])
    assert plain.stdout.startswith("# National Early Warning Score 2 (news2 1.0.0)\n")
    assert page.stdout.startswith("<!doctype html>")
    for one in ATTRIBUTES.values():
        assert one.asks in plain.stdout
        assert one.asks in html.unescape(page.stdout)


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


EVIL = "<script>alert(1)</script><img src=x onerror=y> & | {{ 7 * 7 }} {% raw %}"


def test_what_an_author_writes_is_text_on_the_page_and_in_markdown():
    card = parse_card(text(developer=("provided", EVIL)).replace("Late treatment.", EVIL), "card.toml")
    manifest = early_warning().manifest
    tags = Tags()
    page = rendered(card, manifest, html=True)
    tags.feed(page)
    assert tags.seen.isdisjoint({"script", "img", "iframe", "link", "a"})
    assert tags.attributes <= {"lang", "charset", "http-equiv", "content", "class"}
    plain = rendered(card, manifest, html=False)
    for written in (page, plain):
        assert "<script" not in written
        assert "{{ 7 * 7 }}" in written
    (row,) = [line for line in plain.splitlines() if line.startswith("| A low")]
    assert row.replace("\\|", "").count("|") == 4


def test_a_card_that_lacks_something_says_so_at_its_head():
    card = parse_card(text(without=("intended_use",)), "card.toml")
    for html_too in (False, True):
        said = rendered(card, early_warning().manifest, html=html_too)
        assert "Not complete: intended_use. It may run in shadow and not be promoted." in said


def test_a_model_without_a_card_is_refused(tmp_path):
    install(tmp_path)
    done = CliRunner().invoke(main, ["models", "card", "early_warning", "--models-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "there is no card.toml" in done.stderr
