"""What a server truly does differently from the main line, as data.

A test observes one thing and asks `expected` what this server is to do. The main line is what most servers do and what
the practice EHR must do; a difference is written here with the value that is observed instead. Both are asserted, so a
server that changes in either direction fails its test. Nothing is skipped for being different.

What the sidecar does about each difference is beside it.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Claim:
    """What the main line is observed to do, and what each server that differs is."""

    main: Any
    differs: dict[str, Any] = field(default_factory=dict)


CLAIMS: dict[str, Claim] = {
    # What /metadata says. sekmet serves RiskAssessment without naming it: the sidecar, which believes /metadata, writes
    # the Observation alone there.
    "types it does not name": Claim(set(), {"sekmet": {"RiskAssessment"}, "medplum": {"Subscription"}}),
    "parameters it does not name": Claim({}),
    "conditionalCreate of Device": Claim(True),
    "conditionalCreate of Observation": Claim(True),
    "conditionalCreate of RiskAssessment": Claim(True, {"sekmet": False}),
    # HAPI takes a PUT to a new id without saying so; the sidecar uses conditional create there.
    "updateCreate of Device": Claim(True, {"hapi": False, "medplum": False}),
    "updateCreate of Observation": Claim(True, {"hapi": False, "medplum": False}),
    "updateCreate of RiskAssessment": Claim(True, {"hapi": False, "sekmet": False, "medplum": False}),
    # Conditional create. sekmet searches, then creates, with nothing between: several at once may all create. PUT to an
    # id of ours is its rung of the write ladder.
    "two conditional creates of Device": Claim([201, 200]),
    "two conditional creates of Observation": Claim([201, 200]),
    "two conditional creates of RiskAssessment": Claim([201, 200], {"sekmet": [400, 400]}),
    "how many many conditional creates at once make": Claim({1}, {"sekmet": set(range(1, 17))}),
    "a PUT to an id that is not there": Claim(201, {"medplum": 404}),
    "three PUTs to an id that was not there": Claim([201, 200, 200], {"medplum": [404, 404, 404]}),
    # Writes. The sidecar posts no ids, takes Location with or without the version, and the body where there is one.
    "the version is in Location": Claim(True, {"medplum": False}),
    "the id of a created body is kept": Claim(False, {"medplum": True}),
    "return=minimal is answered with a body": Claim(False, {"medplum": True}),
    # Only numbers can be compared; of other versions the sidecar knows no more than that they differ.
    "versions are growing numbers": Claim(True, {"medplum": False}),
    # Both are a conflict: read again, then write.
    "a stale If-Match": Claim(412, {"hapi": 409}),
    # An equal body is not written a second time by the sidecar either.
    "an update that changes nothing makes no version": Claim(False, {"hapi": True}),
    "a read of what was deleted": Claim(410, {"medplum": 404}),
    "an element that R4 does not have": Claim(400, {"hapi": 201}),
    # No score depends on a trailing zero.
    "37.10 is read as": Claim("37.1", {"hapi": "37.10"}),
    # The sidecar's own record keeps the version, and compares without it.
    "a reference keeps its version": Claim(True, {"hapi": False}),
    # Searches. What is searched for is looked at again, since a server may ignore a parameter; none is sent that
    # /metadata does not name.
    # Where it does not, the Patient is read by itself.
    "a search of Observations may bring the Patient along": Claim(True, {"medplum": False}),
    "a RiskAssessment is found by identifier": Claim(True, {"sekmet": False}),
    "a RiskAssessment is found by patient": Claim(True, {"sekmet": False}),
    "an unknown parameter": Claim("ignored", {"hapi": "refused", "medplum": "finds nothing"}),
    "an unknown parameter, strictly": Claim("refused", {"medplum": "finds nothing"}),
    # Bundles, which the sidecar does not send. Medplum's repository in memory cannot take back what an entry did.
    "transactions are declared": Claim(True, {"medplum": False}),
    "a transaction is whole or not at all": Claim(True, {"medplum": False}),
    # Subscriptions. Without them the `_lastUpdated` search finds everything.
    "a Subscription is answered": Claim(201, {"medplum": 404}),
    # Topics. HAPI here runs without its topic module. Where events cannot be asked for again, a gap is closed by search.
    "topics are declared": Claim(True, {"hapi": False, "medplum": False}),
    "$events is answered": Claim(200, {"sekmet": 404}),
}


def expected(server: str, claim: str) -> Any:
    """What `server` is to be observed doing."""
    known = CLAIMS[claim]
    return known.differs.get(server, known.main)
