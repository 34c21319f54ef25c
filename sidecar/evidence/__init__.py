"""What was concluded and on what it rests: the record from which an assessment can be replayed or corrected.

Goes on to `sidecar.writeback` as a queued delivery, in the same transaction.
"""

from sidecar.evidence.archive import Archive
from sidecar.evidence.charted import charted
from sidecar.evidence.shadow import in_shadow

__all__ = ["Archive", "charted", "in_shadow"]
