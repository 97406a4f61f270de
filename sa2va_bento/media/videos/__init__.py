"""Videos: frames of a file one after the other, read by a process of their own, and files made of frames."""
