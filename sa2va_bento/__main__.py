"""`python -m sa2va_bento`."""

from sa2va_bento.cli.main import run

if __name__ == "__main__":
    run()
