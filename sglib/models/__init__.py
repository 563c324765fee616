"""Models that act: local ones, the small model's decoder, servers."""
