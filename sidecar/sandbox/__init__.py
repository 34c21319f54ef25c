"""A practice EHR: an honest in-memory FHIR R4 server for the demo, the tests and fault injection.

It promises what a small R4 server promises (https://hl7.org/fhir/R4/http.html), states in its
CapabilityStatement what it does not, and can be told to fail in the ways real EHRs fail. It imports nothing
else of `sidecar`, so it cannot share a bug with the client it practises with. Start at `ehr.PracticeEhr`.

Deliberately left out: XML, PATCH, chained search, `_revinclude`, conditional update, delete and read,
referential integrity, terminology, channels other than rest-hook. Trailing zeros of decimals (1.10) are not kept.
"""
