"""Shorten texts so that they say how much is missing."""


def shorten(text: str, longest: int) -> str:
    """Shorten a text in its middle, because the important part of an error is at its beginning or its end.

    What says how much is missing comes on top of the `longest` characters.
    """
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} ... [{len(text) - 2 * half} characters left out] ... {text[-half:]}"


def shorten_within(text: str, longest: int) -> str:
    """Shorten a text likewise, to at most `longest` characters together."""
    return text if len(text) <= longest else shorten(text, longest - _NOTE)


_NOTE = 60  # characters; more than the note has
