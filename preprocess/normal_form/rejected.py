"""The one exception of a photo that cannot be packed."""


class Rejected(Exception):
    """A file that cannot become a sample; the message is the short reason."""
