"""What failed on a day, told so that a person can decide in a minute."""
