"""Training: the loop, its state, its versions and its log."""
