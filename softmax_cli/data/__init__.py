"""Images and labels: the IDX format, the known data sets, the downloader, and `load`."""
