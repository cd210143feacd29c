"""HTTP in a plain script, without a broker: `ModelServer` and the services behind its routes."""
