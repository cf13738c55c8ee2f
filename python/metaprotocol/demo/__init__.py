"""A folder of YAML, a control plane, a stock Envoy, and real traffic while the folder is edited.

``python -m metaprotocol.demo`` runs it for 20 seconds (``--duration``, or $DURATION). ``folder`` is
what a person would write, ``script`` edits it, ``traffic`` calls all the while, ``changes`` finds
out when each edit has reached the calls, ``figures`` counts, ``live`` and ``summary`` show,
``world`` starts and stops everything, ``providers`` are the servers.
"""
