"""Random bytes into codecs, with rules that must hold whatever they are.

``targets`` says what is fuzzed, ``messages`` makes inputs, ``worker`` is the process that runs the
codec, ``campaign`` the one that watches it, saves what breaks a rule and makes it small.
``conformance`` checks the same rules without chance.
"""
