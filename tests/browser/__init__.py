"""The report in a real browser: Debian's Chromium, driven by Playwright. Run by `make browser-test`."""
