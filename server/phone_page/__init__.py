"""The page that makes a phone of a browser, served where phones come in: docs/BROWSER.md.

`site.py` answers its requests; `invitation.py` makes the address that phones open, as text and as a QR code. What it
serves is built from `web/phone` by `make web`.
"""
