"""The 31 source attributes of a predictive decision support intervention, in the order of the rule.

45 CFR 170.315(b)(11)(iv)(B), https://www.ecfr.gov/current/title-45/part-170/section-170.315, as published in the final
rule HTI-1 (89 FR 1192, 2024).
"""

from dataclasses import dataclass
from typing import Literal

Must = Literal["provided", "answered", "open"]


@dataclass(frozen=True, slots=True)
class SourceAttribute:
    """One attribute: its place below (iv)(B), what it asks for, and what a promotion needs.

    `must`: "provided" (nothing else will do), "answered" (provided, or not applicable with the reason), or "open" (what
    is not available may be said to be so, as the rule allows of validation elsewhere and at the site).
    """

    name: str
    place: str
    asks: str
    must: Must = "answered"


GROUPS: tuple[tuple[str, tuple[SourceAttribute, ...]], ...] = (
    (
        "Details and output",
        (
            SourceAttribute("developer", "(1)(i)", "Name and contact information of the developer", "provided"),
            SourceAttribute("funding", "(1)(ii)", "Funding source of the technical implementation"),
            SourceAttribute("output", "(1)(iii)", "The value produced as an output", "provided"),
            SourceAttribute(
                "output_type", "(1)(iv)", "Prediction, classification, recommendation or other", "provided"
            ),
        ),
    ),
    (
        "Purpose",
        (
            SourceAttribute("intended_use", "(2)(i)", "Intended use", "provided"),
            SourceAttribute("intended_patients", "(2)(ii)", "Intended patient population", "provided"),
            SourceAttribute("intended_users", "(2)(iii)", "Intended users", "provided"),
            SourceAttribute("decision_role", "(2)(iv)", "Role in decisions: informs, augments, replaces", "provided"),
        ),
    ),
    (
        "Cautioned out-of-scope use",
        (
            SourceAttribute("out_of_scope", "(3)(i)", "Tasks, situations or populations to be cautious of", "provided"),
            SourceAttribute(
                "known_risks", "(3)(ii)", "Known risks, inappropriate settings and uses, limits", "provided"
            ),
        ),
    ),
    (
        "Development and input features",
        (
            SourceAttribute("training_criteria", "(4)(i)", "Exclusion and inclusion criteria of the training data"),
            SourceAttribute(
                "demographic_inputs",
                "(4)(ii)",
                "Which of race, ethnicity, language, sexual orientation, gender identity, sex, date of birth, social "
                "determinants and health status assessments are inputs",
                "provided",
            ),
            SourceAttribute("representativeness", "(4)(iii)", "Demographic representativeness of the training data"),
            SourceAttribute("relevance", "(4)(iv)", "Relevance of the training data to the intended setting"),
        ),
    ),
    (
        "Fairness in development",
        (
            SourceAttribute("fairness_approach", "(5)(i)", "Approach to ensure that the output is fair"),
            SourceAttribute("bias_management", "(5)(ii)", "Approaches to manage, reduce or eliminate bias"),
        ),
    ),
    (
        "External validation",
        (
            SourceAttribute("external_source", "(6)(i)", "Data, setting or environment of external assessment", "open"),
            SourceAttribute("external_party", "(6)(ii)", "Party that conducted the external testing", "open"),
            SourceAttribute(
                "external_representativeness", "(6)(iii)", "Demographic representativeness of external data", "open"
            ),
            SourceAttribute("external_process", "(6)(iv)", "The external validation process", "open"),
        ),
    ),
    (
        "Measures of performance",
        (
            SourceAttribute("validity_internal", "(7)(i)", "Validity in test data of the training data's source"),
            SourceAttribute("fairness_internal", "(7)(ii)", "Fairness in test data of the training data's source"),
            SourceAttribute("validity_external", "(7)(iii)", "Validity in external data", "open"),
            SourceAttribute("fairness_external", "(7)(iv)", "Fairness in external data", "open"),
            SourceAttribute("outcome_evaluations", "(7)(v)", "Evaluations of use on outcomes", "open"),
        ),
    ),
    (
        "Maintenance",
        (
            SourceAttribute("validity_monitoring", "(8)(i)", "How and how often validity is monitored"),
            SourceAttribute("validity_local", "(8)(ii)", "Validity in local data", "open"),
            SourceAttribute("fairness_monitoring", "(8)(iii)", "How and how often fairness is monitored"),
            SourceAttribute("fairness_local", "(8)(iv)", "Fairness in local data", "open"),
        ),
    ),
    (
        "Updates",
        (
            SourceAttribute("update_process", "(9)(i)", "How and how often it is updated"),
            SourceAttribute("correction", "(9)(ii)", "How often performance is corrected when risks are identified"),
        ),
    ),
)
ATTRIBUTES = {one.name: one for _, group in GROUPS for one in group}
