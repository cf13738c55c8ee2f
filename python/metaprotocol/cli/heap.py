"""What is loaded once is not looked through again and again."""

import gc


def freeze_heap() -> None:
    """Takes what there is now out of the garbage collector's sight.

    A control plane keeps all its resources, millions of objects, for as long as it runs; a full
    collection would go through all of them, and hold up a change for as long. It is not even made
    once now: loading leaves next to no garbage. Only for programs that are all ours: it is for the
    whole process.
    """
    gc.freeze()
