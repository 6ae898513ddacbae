"""The only room that imports ``rclpy`` and messages: the nodes, and what they consist of."""
