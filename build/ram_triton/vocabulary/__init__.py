"""RAM's tag lists, and lists of names that people bring."""
