"""Images and labels: known data sets, the cache and its downloader, readers of formats, `load_dataset`."""
