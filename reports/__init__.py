"""Figures drawn from records alone. No torch."""
