"""Examples of what can be built on the matcher; nothing in the package depends on them."""
