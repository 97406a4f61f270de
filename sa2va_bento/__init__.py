"""Sa2VA behind BentoML: a picture and a prompt go in, text and masks come out."""

__version__ = "0.1.0"
