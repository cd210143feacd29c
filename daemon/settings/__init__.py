"""All settings of the process: one frozen value, read from environment and flags, each with its kind and its checks."""
