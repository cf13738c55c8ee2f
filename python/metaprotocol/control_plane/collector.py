"""The garbage collector, kept out of the way of loading.

Loading makes millions of objects that all stay. The collector would look through them again and
again, more of them each time.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic garbage is looked for, in the whole process, until the block is left. What was made
    in it counts as old then: it is not looked through as if most of it were soon to go."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # to the oldest generation
        if was_on:
            gc.enable()
