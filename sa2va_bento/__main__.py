"""`python -m sa2va_bento`."""

import sys

from sa2va_bento.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
