"""Layer 6: ``python -m cloudconnect`` is the command ``cloudconnect``."""

from cloudconnect.cli.main import main

main()
