"""Bulk tagging that resumes: the command `ram-bulk`, one module per step.

listing (what is to be tagged) → work (what is left of it, in order) → run (images are read ahead
and sent to the servers, each at its own pace) → sinks (rows in parts) → output (what is done).
"""
