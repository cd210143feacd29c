"""The routes: predictions, jobs, models and observation; `services` has the protocols of what answers them."""
