"""Scoring with saved models."""
