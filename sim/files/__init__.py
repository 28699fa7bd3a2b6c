"""From files on disk to columns: finding, downloading, unpacking, parsing, caching."""
