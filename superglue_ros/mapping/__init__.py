"""Keyframes, landmark tracks, verified pairs, loops, and maps on disk."""
