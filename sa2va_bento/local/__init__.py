"""Sa2VA without a server: a predictor that takes pictures as people have them, and answers that show themselves."""
