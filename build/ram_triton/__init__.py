"""RAM on Triton: a checkpoint becomes a model repository that is checked, served and measured."""

__version__ = "0.1.0"
