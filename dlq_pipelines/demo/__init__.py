"""A small shop whose deliveries really fail."""
