"""What this practice EHR can do, and the CapabilityStatement that says exactly that.

Pure. Switch something off to practise with a server that lacks it: Epic's has no conditional create, Oracle's
no transaction, many have no RiskAssessment. https://hl7.org/fhir/R4/capabilitystatement.html
"""

from dataclasses import dataclass, field

from sidecar.sandbox.credentials import Credentials
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.parameters import PARAMETERS, parameters_of
from sidecar.sandbox.quirks import Backport

ALL_TYPES = frozenset(PARAMETERS)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server supports; each field is one thing a real EHR may lack."""

    update_create: bool = True
    conditional_create: bool = True
    transaction: bool = True
    batch: bool = True
    identifier_search: bool = True
    """Whether RiskAssessment, Observation and Device can be searched by identifier."""
    include: bool = True
    subscriptions: bool = True
    history: bool = True
    """vread and history."""
    types: frozenset[str] = ALL_TYPES
    backport: Backport | None = field(default_factory=Backport)
    """How topic-based Subscriptions are served; None is a server with classic ones only."""

    def supported(self) -> frozenset[str]:
        """Return the types served; without subscriptions there is no Subscription, without topics no Basic."""
        missing = set() if self.subscriptions else {"Subscription"}
        return self.types - missing - (set() if self.topics else {"Basic"})

    @property
    def topics(self) -> Backport | None:
        """How topics are served, if at all: they need Subscriptions, and Basic to be read from."""
        return self.backport if self.subscriptions and "Basic" in self.types else None

    def interactions(self) -> list[str]:
        """Return the interactions every supported type has."""
        always = ["read", "update", "delete", "create", "search-type"]
        return always + (["vread", "history-instance", "history-type"] if self.history else [])

    def system_interactions(self) -> list[str]:
        """Return what `POST [base]` takes."""
        return [name for name, on in (("transaction", self.transaction), ("batch", self.batch)) if on]


def includes_of(type_name: str) -> list[str]:
    """Return the `_include` values of a type: each of its reference parameters."""
    known = PARAMETERS[type_name].values()
    return [f"{type_name}:{parameter.name}" for parameter in known if parameter.kind == "reference"]


def capability_statement(
    capabilities: Capabilities,
    base_url: str,
    date: str,
    token_url: str | None,
    *,
    secured: bool,
) -> Resource:
    """State what the server at `base_url` does; `token_url` is where clients get a token, if they can."""
    rest: Resource = {
        "mode": "server",
        "resource": [_resource(capabilities, type_name) for type_name in sorted(capabilities.supported())],
        "searchParam": [{"name": "_id", "type": "token"}, {"name": "_lastUpdated", "type": "date"}],
    }
    if capabilities.system_interactions():
        rest["interaction"] = [{"code": code} for code in capabilities.system_interactions()]
    if secured:
        rest["security"] = _security(token_url)
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": "EHR sidecar practice EHR"},
        "implementation": {"description": "An in-memory EHR to practise with", "url": base_url},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [rest],
    }


def smart_configuration(credentials: Credentials, token_url: str) -> Resource:
    """State how clients sign in (https://hl7.org/fhir/smart-app-launch/conformance.html)."""
    found: Resource = {
        "token_endpoint": token_url,
        "token_endpoint_auth_methods_supported": [],
        "grant_types_supported": ["client_credentials"],
        "capabilities": ["permission-v1"] if credentials.v1 else ["permission-v1", "permission-v2"],
    }
    methods, abilities = found["token_endpoint_auth_methods_supported"], found["capabilities"]
    if credentials.client_secret is not None:
        methods += ["client_secret_basic", "client_secret_post"]
        abilities.append("client-confidential-symmetric")
    if credentials.takes_assertions:
        methods.append("private_key_jwt")
        abilities.append("client-confidential-asymmetric")
        found["token_endpoint_auth_signing_alg_values_supported"] = list(credentials.algorithms)
    return found


def _resource(capabilities: Capabilities, type_name: str) -> Resource:
    known = parameters_of(type_name, identifier_search=capabilities.identifier_search)
    resource: Resource = {
        "type": type_name,
        "interaction": [{"code": code} for code in capabilities.interactions()],
        "versioning": "versioned",
        "readHistory": capabilities.history,
        "updateCreate": capabilities.update_create,
        "conditionalCreate": capabilities.conditional_create,
        "conditionalRead": "not-supported",
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
        "searchParam": [{"name": p.name, "type": p.kind} for p in known.values()],
    }
    if capabilities.include and includes_of(type_name):
        resource["searchInclude"] = includes_of(type_name)
    return resource


def _security(token_url: str | None) -> Resource:
    """Name OAuth, and where to get a token, as SMART App Launch 1.0 did: old clients look here."""
    coding = {
        "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
        "code": "SMART-on-FHIR" if token_url else "OAuth",
    }
    security: Resource = {"service": [{"coding": [coding]}]}
    if token_url:
        oauth = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
        uris = [{"url": "token", "valueUri": token_url}]
        security["extension"] = [{"url": oauth, "extension": uris}]
    return security
