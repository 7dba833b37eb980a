"""What the tests share: fixtures, servers of theirs, and runs of the commands."""

# Seconds that tests wait for what is sure to come. On a busy machine, a command that takes a second
# was seen to take 35.
PATIENCE = 300.0
