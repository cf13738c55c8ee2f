"""A stock Envoy with the module, real servers and real clients, to look at.

``python -m metaprotocol.demo`` runs it for 20 seconds (``--duration``, or $DURATION). ``world`` is
what runs, ``traffic`` who calls, ``report`` what is shown.
"""
