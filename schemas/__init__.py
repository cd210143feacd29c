"""The wire contract of inferd: records, codes, limits and their bytes. No I/O."""
