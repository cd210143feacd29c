"""Users' own routes beside ours: plain functions, bound to requests by the names and types of their parameters."""
