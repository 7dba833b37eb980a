"""Where `ram-tag` writes tags beside or instead of stdout: a file per format."""
