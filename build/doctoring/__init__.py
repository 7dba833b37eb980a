"""What is right and wrong with a model repository on a machine, before it is served.

Needs Python alone: what rich, onnx or tritonclient would add is left out where they are missing,
and said so, for it has to run in the serving container too.
"""
