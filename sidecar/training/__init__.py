"""How the shipped models were trained, and how any file of the same format is held against them.

Each `models/<name>/<version>/train.py` says what its rows mean; the rest is here: reading tables, splitting by patient,
fitting additive models, calibrating, writing the graph, and figures with intervals. Nothing that serves imports this.
Training needs the extra `train`; evaluating needs what serving needs.
"""

from sidecar.training.additive import Additive, Basis, Shape, Term, fit, patient_folds, quantiles
from sidecar.training.cases import Cases, Recipe
from sidecar.training.run import run
from sidecar.training.table import BadData, Table, open_text, read_table

__all__ = [
    "Additive",
    "BadData",
    "Basis",
    "Cases",
    "Recipe",
    "Shape",
    "Table",
    "Term",
    "fit",
    "open_text",
    "patient_folds",
    "quantiles",
    "read_table",
    "run",
]
