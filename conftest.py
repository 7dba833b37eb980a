"""Makes fixtures known to all tests, the client's too."""

pytest_plugins = ["pipeline", "training_run"]
