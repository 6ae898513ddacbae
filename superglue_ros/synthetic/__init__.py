"""Synthetic images with exact ground truth: homographies of photographs, rendered rooms, IMUs."""
