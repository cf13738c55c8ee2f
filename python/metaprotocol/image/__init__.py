"""Container images without a daemon: a stock Envoy with the module, or the module on any base.

``build`` puts layers together (``layers``, from files that ``contents`` chooses), ``store`` holds
blobs by their digest, ``places`` reads images from and writes them to an OCI layout, a Docker
archive or a registry. The same input gives the same bytes: nothing depends on who builds, when, or
in which order files are found.

``build`` needs the extra "image" of this package; importing the rest needs nothing.
"""

from metaprotocol.image.errors import ImageError
from metaprotocol.image.options import BuiltImage, ImageOptions, Kind

__all__ = ["BuiltImage", "ImageError", "ImageOptions", "Kind"]
