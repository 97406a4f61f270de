"""`evaluate`: a checkpoint's numbers on the data sets of referring segmentation, as upstream computes them."""
