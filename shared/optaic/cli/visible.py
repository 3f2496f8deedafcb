"""Make texts of other people harmless for a terminal."""


def visible(text: str) -> str:
    """Return a text in which each sign that a terminal would obey is written out."""
    return "".join(
        each if each.isprintable() or each in "\t\n" else each.encode("unicode_escape").decode()
        for each in text
    )
