"""Make `sidecar/deid/code_systems.json`: the codes of those systems of the policy that R4 defines in full.

Promise: from the artefact that `make_r4.py` reads this script always writes the same bytes. Abstract codes, which begin
with an underscore and code nothing, are left out. https://hl7.org/fhir/R4/terminologies-systems.html

    python -m fhir_fixtures.make_code_systems hapi-fhir-validation-resources-r4-8.8.0.jar
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path

from fhir_fixtures.make_r4 import TARGET as R4
from fhir_fixtures.make_r4 import Definitions

TARGET = R4.with_name("code_systems.json")
RULES = R4.with_name("rules.toml")
_CONCEPT = "{http://hl7.org/fhir}concept"
_CODE = "{http://hl7.org/fhir}code"


def build(definitions: Definitions, systems: list[str]) -> dict[str, list[str]]:
    """The codes of each of `systems` that R4 lists."""
    found = {}
    for system in sorted(systems):
        defined = definitions.code_systems.get(system)
        listed = [] if defined is None else [concept.find(_CODE) for concept in defined.iter(_CONCEPT)]
        codes = {each.get("value", "") for each in listed if each is not None}
        if kept := sorted(code for code in codes if not code.startswith("_")):
            found[system] = kept
    return found


def main() -> None:
    """Write the file, or another with `--to`."""
    parser = argparse.ArgumentParser(description="Write the codes that R4 defines, for the de-identification policy.")
    parser.add_argument("jar", type=Path, help="the artefact with the definitions")
    parser.add_argument("--to", type=Path, default=TARGET, help="the file to write")
    arguments = parser.parse_args()
    systems = tomllib.loads(RULES.read_text(encoding="utf-8"))["systems"]
    found = build(Definitions(arguments.jar), systems)
    rows = [f"{json.dumps(system)}:{json.dumps(codes, separators=(',', ':'))}" for system, codes in found.items()]
    text = "{\n" + ",\n".join(rows) + "}\n"
    arguments.to.write_text(text, encoding="ascii")
    sys.stdout.write(f"{arguments.to}: {len(text)} bytes\n")


if __name__ == "__main__":
    main()
