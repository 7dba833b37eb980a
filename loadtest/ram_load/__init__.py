"""The load test behind `loadtest/locustfile.py`; loadtest/README.md is its manual.

options.py      the options, added to locust's own
traffic.py      the pictures and the kinds of requests
transports.py   one request over gRPC or HTTP
expected.py     the right answers: taken before the load, compared under load
open_loop.py    arrivals at a rate, and the search for the highest rate that keeps the limits
report.py       percentiles, limits, the picture
distributed.py  what master and workers send each other
run.py          the course of a test: what happens when it starts and when it ends
"""
