"""Which version of a model may write, for whom, and who said so: an append-only log, and what follows from it.

`standing` and `arms` are pure: a log in, aliases out. `book` names the statements. Nothing here loads a model or knows
the EHR; `sidecar.fleet` turns what stands into running models, `sidecar.registry` answers people.
"""

from sidecar.rollout.alerts import Alerts, Seen
from sidecar.rollout.arms import in_canary
from sidecar.rollout.book import UNSURE, Book, Changed
from sidecar.rollout.settled import asked_by_settings, is_followed, new_in_shadow
from sidecar.rollout.standing import (
    SETTINGS,
    Ask,
    Canary,
    Entry,
    Standing,
    Standings,
    Version,
    What,
    stand,
    stood,
    why_not,
)

__all__ = [
    "SETTINGS", "UNSURE", "Alerts", "Ask", "Book", "Canary", "Changed", "Entry", "Seen", "Standing", "Standings",
    "Version", "What", "asked_by_settings", "in_canary", "is_followed", "new_in_shadow", "stand", "stood", "why_not",
]  # fmt: skip
