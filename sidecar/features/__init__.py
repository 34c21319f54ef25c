"""From a de-identified snapshot to a model's inputs. Pure. The vector goes on to `sidecar.scoring`.

A feature is a number or it is missing with a reason; nothing is imputed in silence.
"""

from sidecar.features.choices import SiteChoices, open_choices
from sidecar.features.cohort import exclusion, exclusion_by_inputs
from sidecar.features.derived import OF_VALUE
from sidecar.features.extract import Extractor
from sidecar.features.units import converter

__all__ = ["OF_VALUE", "Extractor", "SiteChoices", "converter", "exclusion", "exclusion_by_inputs", "open_choices"]
