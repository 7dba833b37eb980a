"""An HTTP server in front of Triton for programs that speak formats of their own.

`ram-http` starts it. It needs the extra `http`: nothing else in ram_client imports this package.
"""
