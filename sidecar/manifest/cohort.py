"""For whom a model is meant."""

from typing import Literal, Self

from pydantic import model_validator

from sidecar.manifest.codes import Closed, CodePattern
from sidecar.toml import Name


class CohortFact(Closed):
    """A feature value that puts a patient outside the model's cohort.

    A fact that is charted in a way that cannot be read excludes too, unless `unknown` says how the note tells of it.
    `text` is the reason in words.
    """

    feature: Name
    equals: float | None = None
    below: float | None = None
    at_least: float | None = None
    above: float | None = None
    reason: Name
    text: str = ""
    unknown: str = ""

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(limit is not None for limit in (self.equals, self.below, self.at_least, self.above)) != 1:
            raise ValueError("use one of equals, below, at_least, above")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` excludes; a missing one (NaN) does not."""
        if self.below is not None:
            return value < self.below
        if self.at_least is not None:
            return value >= self.at_least
        return value > self.above if self.above is not None else value == self.equals


class CohortNeed(Closed):
    """What must be shown of a patient. Asked only when every input is there: what is missing is said first."""

    feature: Name
    equals: float
    reason: Name
    text: str = ""


class Cohort(Closed):
    """For whom the model is meant. One that speaks of a hospital stay excludes the discharged; others ignore stays.

    A model that is told at discharge names `stays` instead: the classes of Encounters that are stays for it. The
    newest of those is the present one, also when it has ended.
    """

    min_age_years: int | None = None
    max_age_years: int | None = None
    exclude: tuple[Literal["deceased", "inactive", "discharged"], ...] = (
        "deceased",
        "inactive",
        "discharged",
    )
    stays: tuple[CodePattern, ...] = ()
    exclude_when: tuple[CohortFact, ...] = ()
    require: tuple[CohortNeed, ...] = ()

    @property
    def of_a_stay(self) -> bool:
        """Whether a result belongs to a stay."""
        return "discharged" in self.exclude or bool(self.stays)
