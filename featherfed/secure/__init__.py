"""Masked sums: what hides each update of a circle of phones in the circle's sum (docs/PRIVACY.md).

`circles` deals a cohort into circles, `context` says what all keys of one attempt hang on, `keys` derives them, `field`
shares a secret, `streams` makes masks of seeds. `told` is what a phone has said and may say, `member` a phone's part of
an attempt, `opening` the server's. Nothing here does I/O. Only `keys`, `streams`, `member` and `opening` import
`cryptography`; a program that serves no masked round imports none of these four.
"""
