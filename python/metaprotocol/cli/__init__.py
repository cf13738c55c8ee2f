"""The command ``metaprotocol``: one module per command, and what they share.

``failures`` are the faults a person can fix, with their exit codes; ``output`` writes tables,
lines and JSON; ``admin`` reads a running Envoy; ``environment`` finds Envoy, its schema and the
module.
"""
