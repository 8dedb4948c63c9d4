"""Data sets: the catalog, the cache, the downloader and the readers."""
