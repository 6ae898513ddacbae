"""How good is it: the paper's metrics and tables, rosbag replay, comparison and reports."""
