"""The peers that are measured beside each other; each is one process of its own."""
