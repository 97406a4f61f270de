"""`batch`: a whole data set."""
