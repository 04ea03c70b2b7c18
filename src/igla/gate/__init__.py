"""The gate: decides, takes corrections, learns from them on a copy."""
