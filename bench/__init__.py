"""The benchmark: what a request costs through MetaProtocol, and through Envoy's own filters.

``python -m bench`` starts one stock Envoy with every proxy in it, over the same servers, and
measures Envoy's own CPU time per request. ``plan`` says what is measured, ``proxies`` configures
it, ``measure`` does it, ``report`` shows it.
"""
