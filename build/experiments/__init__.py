"""What prints a table of the docs; each file is a script with `--help`."""
