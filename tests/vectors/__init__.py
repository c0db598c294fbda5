"""Test vectors for ``docs/protocol.rst``, and two decoders that agree on them."""
