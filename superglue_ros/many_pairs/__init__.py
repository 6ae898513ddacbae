"""Millions of pairs on Ray: features once an image, every pair once, resumable at any moment."""
