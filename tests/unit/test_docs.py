"""What users look up is true: every setting, metric and command is in the README, and nothing else is."""

import re
import sys
from pathlib import Path

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sidecar import metrics
from sidecar.cli import main
from sidecar.settings import ModelSettings, Settings
from sidecar.store.inventory import KINDS, OPEN, SEALED

README = Path(__file__).parents[2] / "README.md"


def settings_table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for section, field in Settings.model_fields.items():
        inner = ModelSettings if section == "models" else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            table = "models.NAME" if section == "models" else section
            rows += [_row(f"[{table}] {name}", spec) for name, spec in inner.model_fields.items()]
        else:
            rows.append(_row(section, field))
    return "\n".join(rows)


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else field.get_default(call_default_factory=True)
    if default in (None, {}):
        default = "none"
    if hasattr(default, "total_seconds"):
        default = f"{default.total_seconds():g} s"
    return f"| `{name}` | {default} | {field.description} |"


def metrics_table() -> str:
    rows = ["| metric | labels | meaning |", "|---|---|---|"]
    for name, thing in vars(metrics).items():
        if name.isupper() and hasattr(thing, "_labelnames"):
            total = "_total" if type(thing).__name__ == "Counter" else ""
            rows.append(
                f"| `{thing._name}{total}` | {', '.join(thing._labelnames) or 'none'} | {thing._documentation} |"
            )
    return "\n".join(rows)


def commands_table() -> str:
    rows = ["| command | does |", "|---|---|"]

    def walk(command: click.Command, path: str) -> None:
        if isinstance(command, click.Group):
            for name, inner in sorted(command.commands.items()):
                walk(inner, f"{path} {name}")
        else:
            options = [f"`{p.opts[0]}`" for p in command.params if isinstance(p, click.Option)]
            says = " ".join((command.help or "").split())
            rows.append(f"| `{path}` | {says} {'Options: ' + ', '.join(options) if options else ''} |")

    walk(main, "sidecar")
    return "\n".join(rows)


def sealed_table() -> str:
    rows = ["| column | holds | why | bound to |", "|---|---|---|---|"]
    return "\n".join([*rows, *(f"| `{c.place}` | {c.holds} | {c.why} | {', '.join(c.row)} |" for c in SEALED)])


def open_table() -> str:
    rows = ["| table | holds in the open |", "|---|---|"]
    for table, columns in OPEN.items():
        by_kind: dict[str, list[str]] = {}
        for column, kind in columns.items():
            by_kind.setdefault(kind, []).append(f"`{column}`")
        said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items())
        rows.append(f"| `{table}` | {said} |")
    return "\n".join(rows)


def kinds_table() -> str:
    return "\n".join(["| in the open | is |", "|---|---|", *(f"| {kind} | {means} |" for kind, means in KINDS.items())])


TABLES = {
    "commands": commands_table, "settings": settings_table, "metrics": metrics_table, "sealed": sealed_table,
    "open": open_table, "kinds": kinds_table,
}  # fmt: skip


def _written(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)(?=\n\n|\Z)", README.read_text(), re.DOTALL)
    return found.group(1).strip() if found else ""


def test_the_readme_lists_every_setting_and_no_other():
    assert _written("settings") == settings_table()


def test_the_readme_lists_every_metric_and_no_other():
    assert _written("metrics") == metrics_table()


def test_the_readme_lists_every_command_and_no_other():
    assert _written("commands") == commands_table()


def test_the_readme_lists_every_sealed_column_and_no_other():
    assert _written("sealed") == sealed_table()


def test_the_readme_lists_every_column_in_the_open_and_no_other():
    assert _written("open") == open_table()
    assert _written("kinds") == kinds_table()


def test_the_budget_of_settings_is_kept():
    assert settings_table().count("\n| `") <= 47


if __name__ == "__main__":  # python tests/unit/test_docs.py writes the tables
    text = README.read_text()
    for name, table in TABLES.items():
        text = re.sub(
            rf"<!-- {name} -->\n.*?(?=\n\n)", lambda _, n=name, t=table: f"<!-- {n} -->\n{t()}", text, flags=re.DOTALL
        )
    README.write_text(text)
    sys.stdout.write("README tables written\n")
