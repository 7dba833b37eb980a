"""How long tests wait for what is sure to come."""

# Seconds. A command that takes a second to start was seen to take 35 on a busy machine.
PATIENCE = 180.0
