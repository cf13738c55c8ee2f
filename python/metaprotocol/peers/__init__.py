"""Protocol clients and servers that demos and tests talk to through the proxy.

They are written against the protocols' specifications, not against our own codecs, and are
themselves checked against independent implementations: a codec and a peer that share a
misunderstanding would otherwise agree with each other.
"""
