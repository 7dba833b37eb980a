"""Makes fixtures known to all tests, the client's too."""

import signal

pytest_plugins = ["support.pipeline", "support.training_run", "support.supervised"]

# What a shell puts into the background ignores SIGINT, and so do its children: those that the tests
# interrupt would not notice.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same with SIGHUP under nohup; these processes themselves still go on.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
