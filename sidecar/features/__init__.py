"""From a de-identified snapshot to a model's inputs. Pure. The vector goes on to `sidecar.scoring`.

A feature is a number or it is missing with a reason; nothing is imputed in silence.
"""

from sidecar.features.cohort import exclusion
from sidecar.features.extract import Extractor, SiteChoices

__all__ = ["Extractor", "SiteChoices", "exclusion"]
