"""One self-contained HTML page about a model: what it learned, where it errs, and a board to try it on."""
