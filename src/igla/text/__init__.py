"""Tokenizers: trained, loaded, saved, and how well they suit a text."""
