"""Thumbnails, sharpness and drawings: the one door to pyvips, and through it to libvips.

libvips is loaded inside functions, on one thread and without its cache: a Pi has other things to do, and no
file is opened twice. So the program can be imported, and runs, where there is no libvips.
"""

import os
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trapsync.errors import DamagedImage, StorageError, TrapsyncError
from trapsync.files import durable
from trapsync.jpeg import structure

SMALL = (512, 384)
MINI = (128, 96)
_QUALITY = 80
# Beyond these a decoder may need more memory than a worker has. 64 million holds the largest sensor that the
# settings allow (9152 x 6944); a progressive picture must be held whole, at two bytes a sample.
_MOST_PIXELS = 64 * 10**6
_MOST_PROGRESSIVE_PIXELS = 30 * 10**6
_LONGEST_HEADER = 16 << 20
_LARGEST_IN_MEMORY = 32 << 20  # of a file that is read whole: a worker has little memory
_GRAIN = 512  # pixels: the side of the tile of grain that is repeated; nobody sees that

_ADVICE = "libvips is missing: run `sudo apt install libvips42` or `pipx inject trapsync pyvips-binary`"


def missing() -> str | None:
    """What is missing for thumbnails and drawing, and what to do, in one line; None when nothing is.

    Nothing is loaded for it: libvips would cost the daemon's own process 20 MB.
    """
    if find_spec("pyvips") is None:
        return "pyvips is missing: run `scripts/install` once more, or `pipx inject trapsync pyvips`"
    if find_spec("_libvips") is None and find_library("vips") is None:  # the wheel brings the former
        return _ADVICE
    return None


def _pyvips() -> Any:
    os.environ["VIPS_CONCURRENCY"] = "1"  # read once, when libvips loads
    try:
        import pyvips
    except (ImportError, OSError):  # OSError: pyvips is there, the C library is not
        raise TrapsyncError(missing() or _ADVICE) from None
    pyvips.cache_set_max(0)
    return pyvips


def version() -> str:
    """The version of libvips, or what is wrong with it, in words. Loads it."""
    try:
        pyvips = _pyvips()
    except TrapsyncError as error:
        return str(error)
    if not pyvips.type_find("VipsOperation", "jpegload"):
        return "it was built without JPEG: run `sudo apt install libvips42` or `pipx inject trapsync pyvips-binary`"
    return "libvips " + ".".join(str(pyvips.version(part)) for part in range(3))


def make(source: Path, small: Path, mini: Path) -> None:
    """Write both small copies of a JPEG: fitted inside 512 x 384 and 128 x 96, never enlarged.

    The aspect is kept, and a picture that says in its EXIF which side is up is turned that way, for the
    copies carry no EXIF. One decode, at reduced scale; the mini is made from the small. Each appears whole
    under its name but is not flushed: a power cut costs a thumbnail, which can be made again.

    Raises DamagedImage for what cannot be decoded or would take too much memory, FileNotFoundError when
    `source` is gone, StorageError when it cannot be read or a copy not be written, TrapsyncError when
    libvips is missing.
    """
    pyvips = _pyvips()
    shrink = _shrink(_header(source))
    try:
        picture = pyvips.Image.jpegload(str(source), shrink=shrink, fail_on="truncated", access="sequential")
        picture = _fitted(picture, SMALL).copy_memory()
        copies = [(small, _encoded(picture)), (mini, _encoded(_fitted(picture, MINI)))]
    except pyvips.Error as error:
        raise DamagedImage(f"cannot be decoded: {_first_line(error)}") from None
    for path, content in copies:
        durable.write(path, [content], flush=False)


def is_whole(source: Path, *, has_strays: bool = False) -> bool:
    """Decode a JPEG to its last block, at an eighth of its size: False if the decoder had any complaint.

    `has_strays`: without the stray bytes in its header, which it would pass over, but not without complaint.
    True as well for a picture that is too large to try. Raises like `make`, but never for the picture's sake.
    """
    pyvips = _pyvips()
    try:
        _shrink(_header(source))
    except DamagedImage:
        return True
    if has_strays and source.stat().st_size > _LARGEST_IN_MEMORY:
        return True
    options = {"shrink": 8, "fail_on": "warning", "access": "sequential"}
    try:
        if has_strays:
            content = b"".join(structure.without_strays(source.read_bytes()))
            pyvips.Image.jpegload_buffer(content, **options).avg()
        else:
            pyvips.Image.jpegload(str(source), **options).avg()
    except pyvips.Error:
        return False
    return True


def sharpness(content: bytes) -> float:
    """Measure how sharp a picture is: the contrast of its finest lines, in per cent of its brightness.

    It is the deviation of the Laplacian, at half size and a little smoothed: else the grain of a night would
    count for more than the lens. Only numbers of the same scene can be
    compared. Raises DamagedImage for no JPEG, TrapsyncError when libvips is missing.
    """
    pyvips = _pyvips()
    laplacian = pyvips.Image.new_from_array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    try:
        picture = pyvips.Image.jpegload_buffer(content, shrink=2).colourspace("b-w").cast("float")
        picture = picture.gaussblur(1).copy_memory()
        contrast = picture.conv(laplacian).deviate()
        return float(100 * contrast / max(picture.avg(), 1.0))
    except pyvips.Error as error:
        raise DamagedImage(f"cannot be decoded: {_first_line(error)}") from None


def draw(svg: str, *, width: int, height: int, noise: float, seed: int, quality: int) -> bytes:
    """A JPEG of `width` x `height` pixels from an SVG, with Gaussian grain of `noise` grey levels.

    The SVG is rendered at the size it states and then enlarged: at half the size it costs a quarter, and is
    as soft as a lens. The same arguments give the same bytes on the same libvips. Raises TrapsyncError when
    libvips is missing, DamagedImage for no SVG.
    """
    pyvips = _pyvips()
    try:
        # Into memory first: the renderer would start again for every tile that the enlarging asks for.
        picture = pyvips.Image.svgload_buffer(svg.encode()).flatten().copy_memory()
        picture = picture.resize(width / picture.width, vscale=height / picture.height, kernel="linear")
        grain = pyvips.Image.gaussnoise(_GRAIN, _GRAIN, mean=0, sigma=noise, seed=seed).copy_memory()
        grain = grain.replicate(-(-width // _GRAIN), -(-height // _GRAIN)).crop(0, 0, width, height)
        # Colours at half resolution, as cameras do; libvips would stop that at quality 90.
        picture = (picture + grain).cast("uchar")
        content: bytes = picture.jpegsave_buffer(Q=quality, subsample_mode="on", strip=True)
    except pyvips.Error as error:
        raise DamagedImage(f"cannot be drawn: {_first_line(error)}") from None
    return content


def _header(source: Path) -> structure.Header:
    try:
        with source.open("rb") as file:
            return structure.header(file.read(_LONGEST_HEADER))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(durable.explain(error, source)) from error


def _shrink(header: structure.Header) -> int:
    """The factor by which libjpeg may shrink while it decodes (8, 4, 2 or 1), with enough left for the small copy.

    Raises DamagedImage for pictures too large to decode: a bomb of a few kilobytes asks for gigabytes.
    """
    pixels = header.width * header.height
    most = _MOST_PROGRESSIVE_PIXELS if header.progressive else _MOST_PIXELS
    if pixels > most:
        kind = "a progressive picture" if header.progressive else "a picture"
        limit = f"{most / 1e6:.0f}"
        raise DamagedImage(f"{kind} of {pixels / 1e6:.0f} megapixels; thumbnails are made up to {limit}")
    # Whichever way up it will be: EXIF may say that the long side is the height.
    short, long = sorted((header.width, header.height))
    room = max(1.0, min(long / SMALL[0], short / SMALL[1]))
    return max(factor for factor in (1, 2, 4, 8) if factor <= room)


def _fitted(picture: Any, box: tuple[int, int]) -> Any:
    """Turn upright, convert to sRGB or grey, and shrink to fit; never enlarge."""
    return picture.thumbnail_image(box[0], height=box[1], size="down")


def _encoded(picture: Any) -> bytes:
    # `strip` and not `keep`: Debian's libvips 8.14 does not know the newer name.
    content: bytes = picture.jpegsave_buffer(Q=_QUALITY, strip=True)
    return content


def _first_line(error: Exception) -> str:
    """One line of an error of libvips: the second, if there are several, else the only one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)][:200] if lines else "libvips does not say why"
