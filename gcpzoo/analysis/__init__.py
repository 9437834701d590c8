"""What a network does, measured and drawn."""
