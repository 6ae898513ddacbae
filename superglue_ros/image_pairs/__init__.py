"""Pairs of images from arrays or files, without a sequence: the API, its files and its command."""
