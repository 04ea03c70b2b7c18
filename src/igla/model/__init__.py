"""Models and their Hugging Face folders."""
