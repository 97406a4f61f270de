"""What is asked about a picture and answered, in words, in tokens, and packed."""
