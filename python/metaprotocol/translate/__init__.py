"""Resources translated: into Envoy's configuration, and into what Istio needs to have it made.

``Translator`` keeps a translation up to date, ``translate`` makes one at once. Both are pure: the
same resources give the same bytes.
"""

from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.translator import Translator, Update, translate

__all__ = ["Options", "Target", "Translator", "Update", "translate"]
