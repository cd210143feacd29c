"""The objects that users hold: models, predictors and batch jobs in their own process, without a broker.

`ModelManager`, `RealtimePredictor` and `BatchPredictor` work in a plain script over a directory, and in a worker over
its own models; a subclass named to `inferd worker` does its work there.
"""
