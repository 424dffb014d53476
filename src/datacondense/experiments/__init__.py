"""What the paper does with condensed sets: its tables, continual learning, architecture search."""
