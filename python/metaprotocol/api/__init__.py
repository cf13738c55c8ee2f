"""The public Python API, which ``import metaprotocol`` offers lazily.

``resources`` re-exports the typed models, ``mesh`` loads and translates them, ``proxy`` runs them
through a real Envoy, ``explain`` tells which route a call takes and why.
"""
