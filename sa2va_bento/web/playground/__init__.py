"""The playground: a page where one looks instead of reads. It is a client of the public API, as any other."""
