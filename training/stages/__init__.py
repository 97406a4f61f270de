"""The stages of training, the loop that they share, and the run of all."""
