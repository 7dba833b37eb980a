"""RAM on Triton: a checkpoint becomes a model repository that is checked, served and measured."""

from importlib.metadata import version

__version__ = version("ram-triton")  # of clients/python/ram_client/__init__.py
