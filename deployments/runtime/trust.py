"""Whom a pod of ours takes for the portal: the system's authorities, and a company's own."""

import ssl


def context(ca: str) -> ssl.SSLContext:
    """`ca` are PEM certificates, "" for none. Raises ssl.SSLError for what is none."""
    made = ssl.create_default_context()
    if ca:
        made.load_verify_locations(cadata=ca)
        # companies' own authorities seldom say all that newer Pythons would like to read
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return made
