"""A small shop whose deliveries really fail, to try everything else on."""
