"""The state of batch jobs: pure functions from a state and a message to the next state and what to publish."""
