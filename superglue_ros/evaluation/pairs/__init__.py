"""Evaluation of image pairs: homographies and relative poses."""
