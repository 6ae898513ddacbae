"""Inference engines: the same arithmetic as :mod:`superglue_ros.networks`, faster.

Plain torch, ``torch.compile`` and ONNX Runtime; export; and the check of lower precisions.
"""
