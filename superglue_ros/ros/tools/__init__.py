"""Further nodes: play a bag, record one, measure latency."""
