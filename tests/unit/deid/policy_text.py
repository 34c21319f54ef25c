"""The shipped policy as text that a test may change, and what its readers say of it then."""

from pathlib import Path

from sidecar.deid import load_policy, load_rules
from sidecar.errors import Misconfigured

SHIPPED = Path(__file__).resolve().parents[3] / "sidecar" / "deid" / "rules.toml"
TEXT = SHIPPED.read_text()
# What can hold a name, a number of a record or an address is not kept, whoever asks for it.
NEVER = {
    "Address", "Annotation", "Attachment", "ContactPoint", "HumanName", "Identifier", "Meta", "Narrative", "Signature",
    "base64Binary", "canonical", "markdown", "oid", "string", "time", "uri", "url", "uuid", "xhtml",
}  # fmt: skip


def refused(text):
    """The problems of a policy; none when it loads."""
    found = []
    for load in (load_policy, load_rules):
        try:
            load(text.encode())
        except Misconfigured as error:
            found.append(error.problems)
    assert len(found) in {0, 2}, "the two readers of one file disagree on whether it is sound"
    return found[0] if found else []


def changed(old, new):
    assert old in TEXT
    return TEXT.replace(old, new, 1)
