"""How the embedded nano model is made: synthetic scenes, training stages, export and evaluation."""
