"""The subcommands of ram-triton, a file each; what is slow to import is imported when one runs."""
