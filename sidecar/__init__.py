"""The EHR sidecar: a FHIR event becomes an explained RiskAssessment in the chart, exactly once.

Start with `sidecar.pipeline` (the path on one screen) and `sidecar.records` (the values it passes on).
"""

__version__ = "0.1.0"
