"""Nodes beside the matcher: play a bag, record one, measure latency."""
