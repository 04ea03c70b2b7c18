"""Parts of train_decoder.py."""
