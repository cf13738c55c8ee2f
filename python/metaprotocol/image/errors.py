"""What can be wrong with an image."""

from __future__ import annotations

from metaprotocol.errors import Error


class ImageError(Error, RuntimeError):
    """An image cannot be read, built or written; says what is wrong and, where it is known, how to
    fix it. Nothing half-written is left."""


class BadPlace(ImageError):
    """What is written in place of an image's name is none."""
