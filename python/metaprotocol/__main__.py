"""``python -m metaprotocol``: the command ``metaprotocol``."""

from metaprotocol.cli.main import main

if __name__ == "__main__":
    main()
