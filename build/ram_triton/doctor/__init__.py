"""What is right and wrong with a model repository on a machine, before it is served."""
