"""Makes the fixtures of tests/pipeline.py known to all tests, the client's too."""

pytest_plugins = ["pipeline"]
