"""HTTP of a worker: its application, composed from its settings, and the services behind the routes."""
