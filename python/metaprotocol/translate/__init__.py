"""Resources translated: into Envoy's configuration, and into what Istio needs to have it made.

``Translator`` keeps a translation up to date, ``translate`` makes one at once. Both are pure: the
same resources give the same bytes.
"""

from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.snapshot import Made, Snapshot
from metaprotocol.translate.translator import Progress, Translator, translate

__all__ = ["Made", "Options", "Progress", "Snapshot", "Target", "Translator", "translate"]
