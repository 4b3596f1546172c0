"""HTTP's face: each route reads its arguments, calls one function and returns what that said."""
