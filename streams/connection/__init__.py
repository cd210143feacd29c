"""How every process connects to brokers: options, TLS, back-off, and why a broker cannot be reached. aiokafka alone."""
