"""The terminal's face: each command reads its arguments, calls one function and prints what that said."""
