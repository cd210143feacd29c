"""`inferd jobs`: submits a file of rows as a batch job, watches it, and reads its results."""
