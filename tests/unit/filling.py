"""Fill in a scaffold as its author would, by the words that stand at each place."""

import re
from pathlib import Path

from tests.unit.opaque import FEATURES, TYPICAL

CODES = {"respiratory_rate": "9279-1", "spo2": "59408-5", "systolic_bp": "8480-6", "pulse": "8867-4"}
UNITS = {"respiratory_rate": "/min", "spo2": "%", "systolic_bp": "mm[Hg]", "pulse": "/min"}
RANGES = {"respiratory_rate": "[0, 80]", "spo2": "[50, 100]", "systolic_bp": "[40, 300]", "pulse": "[20, 250]"}


def fill_manifest(text: str) -> str:
    """The manifest of `tests.unit.opaque`'s trees."""
    for name in FEATURES:
        text = text.replace(f'{name} = "FILL IN" # a number', f"{name} = {TYPICAL[name]:g}")
        head = f"[features.{name}]"
        before, _, after = text.partition(head)
        after = after.replace('"FILL IN: what a clinician calls it"', f'"{name.replace("_", " ")}"', 1)
        after = after.replace('unit = "FILL IN"', f'unit = "{UNITS[name]}"', 1).replace('max_age = "FILL IN"', 'max_age = "4h"', 1)  # fmt: skip
        after = after.replace('plausible = ["FILL IN", "FILL IN"]', f"plausible = {RANGES[name]}", 1)
        after = after.replace('codes = ["FILL IN"]', f'codes = ["http://loinc.org|{CODES[name]}"]', 1)
        text = before + head + after
    for place, said in {
        'validity = "FILL IN"': 'validity = "6h"',
        'spread = "FILL IN"': 'spread = "4h"',
        '{ value = "FILL IN", unit = "FILL IN" }': '{ value = 24, unit = "h" }',
        'at_least = "FILL IN"': "at_least = 0.2",
    }.items():
        text = text.replace(place, said)
    return re.sub(r'"FILL IN: [^"]*"', '"As our ward has decided"', text)


def fill_card(text: str) -> str:
    """A card of which everything is said."""
    return re.sub(r'"FILL IN: [^"]*"', '"As our ward has decided"', text)


def fill(folder: Path) -> None:
    """Both files of a scaffold, in place."""
    for name, filled in (("manifest.toml", fill_manifest), ("card.toml", fill_card)):
        path = folder / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
