"""Back up to a service provider, as a Twisted protocol stack.

The layers, from words to faces, and what each may import, stand in ``docs/architecture.rst``.
"""
