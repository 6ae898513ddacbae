"""Evaluation: the paper's metrics and tables, rosbag replay, comparison and reports."""
