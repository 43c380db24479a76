"""XML from outside: the answers of S3 stores. The one place where it is read, within bounds.

Without a document type there are no entities but the five of XML, and nothing in it grows or is fetched. What is too
deep or of too many elements is none.
"""

from xml.parsers import expat

MOST_ELEMENTS = 20_000  # a list of 1,000 objects has some 8,000
DEEPEST = 8


class _Reader:
    """Facts are the texts right below the root; rows the same of each element of one name there."""

    def __init__(self, row: str) -> None:
        self._row = row
        self._open: list[str] = []
        self._elements = 0
        self._text: list[str] = []
        self.root = ""
        self.facts: dict[str, str] = {}
        self.rows: list[dict[str, str]] = []

    def begin(self, name: str, _attributes: object) -> None:
        self._elements += 1
        self._open.append(name.rpartition(":")[2])
        self._text = []
        if self._elements > MOST_ELEMENTS or len(self._open) > DEEPEST:
            raise ValueError("too deep, or of too many elements")
        if self._open[1:] == [self._row]:
            self.rows.append({})
        self.root = self._open[0]

    def text(self, text: str) -> None:
        self._text.append(text)

    def end(self, _name: str) -> None:
        text, self._text = "".join(self._text), []
        if len(self._open) == 2 and self._open[1] != self._row:
            self.facts[self._open[1]] = text
        elif len(self._open) == 3 and self._open[1] == self._row:
            self.rows[-1][self._open[2]] = text
        self._open.pop()


def read(text: bytes, root: str, row: str = "") -> tuple[dict[str, str], list[dict[str, str]]]:
    """What a document with this root says: its facts, and its rows. ValueError, with the reason, if it is none."""
    reader, parser = _Reader(row), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("with a document type")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.begin, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, LookupError):
        raise ValueError("cut off or broken") from None
    if reader.root != root:
        raise ValueError(f"no {root}")
    return reader.facts, reader.rows
