"""The JPEG's metadata, written and read: the one door to piexif.

::

    writing.py   our EXIF into a JPEG, and corrected times
    reading.py   the EXIF of any camera as metadata
    tiff.py      a block read tag by tag, whoever wrote it
    blocks.py    what they share: texts that can be shown, and the note of evidence

What is written is what the Sticky Pi firmware 3.x writes (the format of 2022: `Make` is `StickyPi`, the
sensors are two lines of text in `UserComment`), or that of its first versions (the format of 2020: a dict in `Make`),
plus the standard tags that any viewer shows. What is read is both, and the standard tags of anybody's camera. piexif,
which writes, is imported inside functions, so that the daemon's own process can import this module without it.
"""

from trapsync.jpeg.exif.reading import read
from trapsync.jpeg.exif.writing import Facts, correct, embed_metadata, make_of_2020, user_comment

__all__ = ["Facts", "correct", "embed_metadata", "make_of_2020", "read", "user_comment"]
