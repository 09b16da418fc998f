"""The demonstration: the whole story on real data, and the page that tells it."""
