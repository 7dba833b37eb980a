"""A real tritonserver on this machine: started, watched, brought back, ended in order."""

from ram_triton.server.ports import LOOPBACK, Ports
from ram_triton.server.process import TritonServer

__all__ = ["LOOPBACK", "Ports", "TritonServer"]
