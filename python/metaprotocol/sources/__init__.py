"""Where resources come from.

``source`` says what a source is; ``files`` is one: a folder of YAML files that is followed.
"""

from metaprotocol.sources.files import FolderSource, load_folder
from metaprotocol.sources.source import Batch, Health, Progress, Source

__all__ = ["Batch", "FolderSource", "Health", "Progress", "Source", "load_folder"]
