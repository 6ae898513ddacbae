"""Cameras, two views, robust poses with covariance, and ground truth made from known geometry."""
