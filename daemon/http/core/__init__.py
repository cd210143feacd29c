"""What every HTTP server needs before it has a route: listening, bodies, authentication, admission and errors."""
