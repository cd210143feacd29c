"""`inferd jobs`: submit a file of rows as a batch job, follow it, and read its results."""
