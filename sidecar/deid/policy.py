"""The allow-list of the general engine: what becomes of each element of R4. Pure. See `rules.toml`, `[keep.*]`."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Keep:
    """What happens to one element.

    `do` is "keep", "refuse", "birth", "death", "place" or "relink". `kind` is the name of its R4 data type, "code" or
    "BackboneElement" or "Resource" among them. `many` says that it is a list in R4. `codes` are the codes that R4 has
    for a code with a required value set. `table` are the elements of a backbone element.
    """

    do: str
    kind: str
    many: bool = False
    codes: frozenset[str] = frozenset()
    table: Mapping[str, "Keep"] | None = None
    modifier: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The general allow-list: tables by resource type and by data type, and what may cross besides.

    `types` and `datatypes` are keyed by the JSON name of an element (`valueQuantity`); an element that is not there
    is dropped. `omitted` lists by path (`Observation`, `Observation.component`, `Quantity`) what is dropped on purpose.
    `extensions` maps the URL of an extension that may cross to "omb" or "code".
    """

    types: Mapping[str, Mapping[str, Keep]]
    datatypes: Mapping[str, Mapping[str, Keep]]
    omitted: Mapping[str, frozenset[str]]
    extensions: Mapping[str, str] = field(default_factory=dict)
    systems: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    restricted_zip3: frozenset[str] = frozenset()
    populated_zip3: frozenset[str] = frozenset()
    digest: str = ""
    age_codes: frozenset[str] = frozenset()


def load_policy(text: bytes | None = None) -> Policy:
    """The shipped policy, or the one in `text`.

    Raises:
        Misconfigured: listing every problem at once.
    """
    raise NotImplementedError
