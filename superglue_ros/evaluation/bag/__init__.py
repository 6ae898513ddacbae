"""Evaluation of recordings, frame by frame, and of trajectories."""
