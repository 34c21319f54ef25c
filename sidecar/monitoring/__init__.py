"""Counting feature values in disjoint bins, so that drift can be summed over replicas. Pure."""

from sidecar.monitoring.bins import Bins, bins_for

__all__ = ["Bins", "bins_for"]
