"""`python -m opengnome` is the command line."""

from opengnome.cli import main

if __name__ == "__main__":
    main()
