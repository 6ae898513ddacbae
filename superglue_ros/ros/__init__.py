"""The nodes and their parts; the only package that imports ``rclpy`` and messages."""
