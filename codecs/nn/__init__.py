"""Networks and losses of the codecs."""
