"""Trained weights; each folder has a card that says on what."""
