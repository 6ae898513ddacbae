"""The entry points of the nodes: signals first, then the modules that take seconds to import."""

from __future__ import annotations

import sys

from superglue_ros.ros.signals import end_at_once


def matcher() -> int:
    """Run the matcher node."""
    end_at_once()
    from superglue_ros.ros.node import main

    return main()


def bundle_adjuster() -> int:
    """Run the example back-end."""
    end_at_once()
    from superglue_ros.ros.bundle_adjuster import main

    return main()


def viewer() -> int:
    """Run the viewer."""
    end_at_once()
    from superglue_ros.ros.viewer import main

    return main()


if __name__ == "__main__":
    sys.exit(matcher())
