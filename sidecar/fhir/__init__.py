"""The FHIR words everyone shares: references, the client, signing in, what a server can do."""
