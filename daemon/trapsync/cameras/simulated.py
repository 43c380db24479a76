"""The camera without hardware: it draws a sticky card, or replays a folder of JPEGs.

It ships, because it is how people try the program, and how a trap is tested on a desk. The card is yellow,
ruled and sticky; it is changed every week, and in between insects land on it, most of them at dusk. What
is on it follows from seed, device and moment alone, so two runs show the same card.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from trapsync.cameras import AlwaysReady, Frame
from trapsync.errors import CameraError, DamagedImage, TrapsyncError
from trapsync.image import is_image_name
from trapsync.jpeg import structure, thumbnail
from trapsync.settings.schema import Camera as CameraSettings

MODEL = "simulated"

# The card in units of a 12-megapixel sensor's pixels: all sizes below are measured in those.
_WIDTH, _HEIGHT = 4056, 3040
_WEEK = 7 * 86400  # seconds until the card is changed
_CATCH = 560  # insects in a week, a good one in June
_RESTLESS = 1800  # seconds for which a new insect still moves
_GRAIN = 1.4  # grey levels of noise by day

# How many of the catch come in each hour of the UTC day: a few by day, most around dusk.
_ACTIVITY = (4, 3, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 5, 5, 5, 6, 8, 12, 18, 20, 14, 8, 5)


class SimulatedCamera(AlwaysReady):
    """A camera that draws, or that shows the pictures of `camera.simulated.replay` in the order of names."""

    def __init__(self, settings: CameraSettings, device: str) -> None:
        self._settings = settings
        self._device = device
        self._replay: list[Path] = []
        self._shown = 0

    def open(self) -> None:
        """Look whether there is what it needs: libvips, or at least one picture to replay."""
        folder = self._settings.simulated.replay
        if folder is not None:
            self._replay = _pictures_in(folder)
        elif problem := thumbnail.missing():
            raise CameraError(
                f"the simulated camera cannot draw: {problem}; "
                f"or set camera.simulated.replay to a folder of JPEGs"
            )

    def capture(self, moment: datetime) -> Frame:
        """Draw the card as it is at that moment, or show the next picture."""
        if self._replay:
            path = self._replay[self._shown % len(self._replay)]
            self._shown += 1
            return _replayed(path)
        return self._drawn(moment.astimezone(UTC))

    def close(self) -> None:
        """Nothing is held."""

    def _drawn(self, moment: datetime) -> Frame:
        width, height = self._settings.resolution
        sun = _sun(moment)
        gain = _gain(sun) if self._settings.gain == "auto" else self._settings.gain
        try:
            content = thumbnail.draw(
                card(self._settings, self._device, moment),
                width=width,
                height=height,
                noise=_GRAIN * gain**0.3,
                seed=int(moment.timestamp()) % 2**31,
                quality=self._settings.quality,
            )
        except TrapsyncError as error:
            raise CameraError(f"the simulated camera cannot draw: {error}") from error
        exposure = self._settings.exposure or _exposure(sun)
        return Frame(content, width, height, MODEL, exposure=float(exposure), gain=gain)


def _pictures_in(folder: Path) -> list[Path]:
    try:
        pictures = sorted(path for path in folder.iterdir() if is_image_name(path.name) and path.is_file())
    except OSError as error:
        raise CameraError(f"camera.simulated.replay: {folder}: {error.strerror}") from None
    if not pictures:
        raise CameraError(f"camera.simulated.replay: there is no .jpg in {folder}")
    return pictures


def _replayed(path: Path) -> Frame:
    try:
        content = path.read_bytes()
        header = structure.header(content)
    except OSError as error:
        raise CameraError(f"camera.simulated.replay: {path}: {error.strerror}") from None
    except DamagedImage as error:
        raise CameraError(f"camera.simulated.replay: {path}: {error}") from None
    return Frame(content, header.width, header.height, MODEL)


# --- The light ----------------------------------------------------------------------------------------------


def _sun(moment: datetime) -> float:
    """How light it is, from 0 (night) to 1 (noon), as at the equator on any day: from six to six UTC."""
    hour = moment.hour + moment.minute / 60
    return max(0.0, math.sin((hour - 6) / 12 * math.pi))


def _exposure(sun: float) -> float:
    """Seconds: 1/15 at night, 1/500 at noon, and evenly in stops between."""
    return float(round(15 ** -(1 - sun) * 500**-sun, 6))


def _gain(sun: float) -> float:
    return round(1.0 + 3.0 * (1 - sun), 2)


# --- The card -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Insect:
    landed: float  # unix seconds
    x: float
    y: float
    angle: float
    scale: float
    drawing: str


def card(settings: CameraSettings, device: str, moment: datetime) -> str:
    """The card at that moment as an SVG of half the resolution, zoomed and turned as the settings say."""
    width, height = settings.resolution
    x, y, w, h = settings.zoom
    view = f"{x * _WIDTH:.1f} {y * _HEIGHT:.1f} {w * _WIDTH:.1f} {h * _HEIGHT:.1f}"
    chance = _chance(settings.simulated.seed, device, moment.timestamp() // _WEEK)
    background = _background(chance, _sun(moment))
    insects = "".join(_placed(insect, moment) for insect in _catch(chance, moment))
    turn = f' transform="rotate(180 {_WIDTH / 2} {_HEIGHT / 2})"' if settings.rotation == 180 else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{(width + 1) // 2}" height="{(height + 1) // 2}" '
        f'viewBox="{view}" preserveAspectRatio="xMidYMid slice">{_STYLE}<g{turn}>{background}{insects}'
        f"{_shade(_sun(moment))}</g></svg>"
    )


def _chance(*seeds: object) -> Random:
    """Chance that is the same in every run, on every machine."""
    return Random("/".join(map(str, seeds)))  # noqa: S311 - nothing here is secret


_STYLE = """<defs>
<radialGradient id="card" cx=".52" cy=".46" r=".75">
<stop offset="0" stop-color="#d8d838"/><stop offset=".55" stop-color="#c6c92f"/>
<stop offset="1" stop-color="#8f9a1f"/>
</radialGradient>
<radialGradient id="shade" cx=".5" cy=".5" r=".72">
<stop offset=".62" stop-color="#0d1000" stop-opacity="0"/>
<stop offset="1" stop-color="#0d1000" stop-opacity=".8"/>
</radialGradient>
<radialGradient id="sheen"><stop offset="0" stop-color="#fffff0" stop-opacity=".34"/>
<stop offset="1" stop-color="#fffff0" stop-opacity="0"/></radialGradient>
<radialGradient id="drop"><stop offset="0" stop-color="#eef08c" stop-opacity=".3"/>
<stop offset="1" stop-color="#eef08c" stop-opacity="0"/></radialGradient>
</defs>
<style>.l{fill:none;stroke:#1d180c;stroke-linecap:round;stroke-linejoin:round}.b{fill:#17140b}
.w{fill:#4b4322;fill-opacity:.42;stroke:#2c2612;stroke-opacity:.5;stroke-width:1}
.v{fill:none;stroke:#2c2612;stroke-opacity:.38;stroke-width:1}</style>"""


def _background(chance: Random, sun: float) -> str:
    """Paper, ruled lines, glue in smears and drops, dust, and the edge of the card."""
    lines = "".join(f"M{x} 38V3002" for x in range(178, _WIDTH, 370))
    lines += "".join(f"M46 {y}H4010" for y in range(150, _HEIGHT, 370))
    smears = "".join(_smear(chance) for _ in range(46))
    dust = "".join(
        f"M{chance.uniform(0, _WIDTH):.0f} {chance.uniform(0, _HEIGHT):.0f}l{chance.uniform(2, 9):.0f} 3"
        for _ in range(160)
    )
    gleam = 900 + 2200 * sun
    return (
        f'<rect x="-20" y="-20" width="4096" height="3080" fill="#2a2a18"/>'
        f'<rect x="46" y="38" width="3964" height="2964" rx="26" fill="url(#card)"/>'
        f'<path d="{lines}" stroke="#5d6414" stroke-opacity=".42" stroke-width="4"/>{smears}'
        f'<ellipse cx="{gleam:.0f}" cy="820" rx="1300" ry="620" fill="url(#sheen)" '
        f'transform="rotate(-24 {gleam:.0f} 820)"/>'
        f'<path d="{dust}" stroke="#3c3a14" stroke-opacity=".55" stroke-width="3.5"/>'
    )


def _smear(chance: Random) -> str:
    x, y = chance.uniform(0, _WIDTH), chance.uniform(0, _HEIGHT)
    return (
        f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="{chance.uniform(60, 420):.0f}" '
        f'ry="{chance.uniform(30, 130):.0f}" fill="url(#drop)" '
        f'transform="rotate({chance.uniform(-35, 15):.0f} {x:.0f} {y:.0f})"/>'
    )


def _shade(sun: float) -> str:
    """The fall-off of the light towards the edges, deeper at night, when only the flash is left."""
    dark = 0.30 * (1 - sun)
    return (
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="url(#shade)" fill-opacity="{1 - 0.6 * sun:.2f}"/>'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#04060a" fill-opacity="{dark:.3f}"/>'
    )


def _catch(chance: Random, moment: datetime) -> list[_Insect]:
    """The insects of this card that have landed until that moment, the first ones first."""
    now = moment.timestamp()
    changed = now - now % _WEEK
    insects = [_insect(chance, changed) for _ in range(_CATCH)]
    return sorted((one for one in insects if one.landed <= now), key=lambda one: one.landed)


def _insect(chance: Random, changed: float) -> _Insect:
    hour = chance.choices(range(24), _ACTIVITY)[0]
    landed = changed + chance.randrange(7) * 86400 + (hour + chance.random()) * 3600
    kind = chance.choices((_fly, _gnat, _cranefly, _moth, _beetle, _speck), (110, 48, 3, 4, 14, 30))[0]
    return _Insect(
        landed=landed,
        x=chance.uniform(90, _WIDTH - 90),
        y=chance.uniform(80, _HEIGHT - 80),
        angle=chance.uniform(0, 360),
        scale=max(0.55, chance.gauss(1.0, 0.17)),
        drawing=kind(chance),
    )


def _placed(insect: _Insect, moment: datetime) -> str:
    angle = insect.angle
    if moment.timestamp() - insect.landed < _RESTLESS:
        angle += _chance(insect.landed, int(moment.timestamp())).gauss(0, 14)
    return (
        f'<g transform="translate({insect.x:.0f} {insect.y:.0f}) rotate({angle:.1f}) '
        f'scale({insect.scale:.2f})">{insect.drawing}</g>'
    )


# --- The insects: each looks up, its centre at 0, 0, in the card's units ------------------------------------


def _fly(chance: Random) -> str:
    """A small fly: stout, red-eyed, its two wings spread or folded."""
    spread = chance.uniform(8, 62)
    return (
        _legs(chance, roots=(-15, -7, 1), reach=30, width=2.6)
        + _wing(spread + chance.uniform(-8, 8), y=-11, length=66, breadth=23)
        + _wing(-spread + chance.uniform(-8, 8), y=-11, length=66, breadth=23)
        + '<path class="b" d="M-11 2C-15 16-13 34 0 43C13 34 15 16 11 2Z"/>'
        '<path d="M-12 13Q0 18 12 13M-12.5 22Q0 27 12.5 22M-10 31Q0 36 10 31" stroke="#4a4020" '
        'fill="none" stroke-width="2"/><ellipse class="b" cy="-10" rx="12.5" ry="15"/>'
        '<ellipse class="b" cy="-29" rx="11" ry="8"/><ellipse cx="-7" cy="-30" rx="5" ry="6" fill="#4a1a10"/>'
        '<ellipse cx="7" cy="-30" rx="5" ry="6" fill="#4a1a10"/>'
    )


def _gnat(chance: Random) -> str:
    """A fungus gnat: slender and long-legged, with feelers."""
    spread = chance.uniform(14, 75)
    bend = chance.uniform(-9, 9)
    return (
        _legs(chance, roots=(-14, -9, -4), reach=46, width=1.8)
        + _wing(spread, y=-12, length=60, breadth=17)
        + _wing(-spread + chance.uniform(-20, 20), y=-12, length=60, breadth=17)
        + f'<path class="l" d="M0-6Q{bend:.0f} 18 {bend * 1.6:.0f} 44" stroke-width="9"/>'
        '<ellipse class="b" cy="-11" rx="7.5" ry="9"/><circle class="b" cy="-22" r="5"/>'
        '<path class="l" d="M-2-26Q-8-38-17-42M2-26Q8-38 17-42" stroke-width="1.600"/>'
    )


def _cranefly(chance: Random) -> str:
    """All legs."""
    return (
        '<g transform="scale(1.9)">'
        + _legs(chance, roots=(-12, -8, -4), reach=92, width=1.5)
        + _wing(chance.uniform(38, 70), y=-10, length=76, breadth=14)
        + _wing(-chance.uniform(38, 70), y=-10, length=76, breadth=14)
        + '<path class="l" d="M0-8L1 58" stroke-width="4.5"/><ellipse class="b" cy="-10" rx="6" ry="9"/>'
        '<circle class="b" cy="-21" r="4"/></g>'
    )


def _moth(chance: Random) -> str:
    """A noctuid at rest: a brown triangle with bands, furry in front."""
    hue = chance.choice(("#6b5330", "#7a6138", "#57452b", "#83704a"))
    open_by = chance.uniform(0, 26)
    wing = (
        f'<path d="M0-34C34-30 74 30 92 84C60 96 20 88 2 78Z" fill="{hue}" stroke="#2f2413" '
        'stroke-width="2"/><path d="M24-18Q30 20 8 44M48 10Q50 52 28 84M70 42Q70 70 58 90" fill="none" '
        'stroke="#2f2413" stroke-opacity=".6" stroke-width="5"/><path d="M34-8Q40 30 18 60" fill="none" stroke="#c7b58a" '
        'stroke-opacity=".5" stroke-width="4"/><ellipse cx="42" cy="24" rx="8" ry="6" fill="#2a2012" '
        'stroke="#c7b58a" stroke-opacity=".6" stroke-width="2"/>'
    )
    return (
        _legs(chance, roots=(-36, -28), reach=40, width=4)
        + f'<g transform="rotate({-open_by:.0f})">{wing}</g>'
        + f'<g transform="scale(-1 1) rotate({-open_by:.0f})">{wing}</g>'
        + f'<path d="M-12-34Q-15 20 0 84Q15 20 12-34Z" fill="{hue}" stroke="#2f2413"/>'
        '<ellipse cy="-36" rx="19" ry="18" fill="#4a3a22"/><circle cy="-56" r="10" fill="#33281a"/>'
        '<path class="l" d="M-5-62Q-22-84-50-92M5-62Q22-84 50-92" stroke-width="2.5"/>'
    )


def _beetle(chance: Random) -> str:
    """A leaf or ground beetle: an oval with a seam, and a gleam on its back."""
    colour = chance.choice(("#1a1712", "#241a10", "#3a1710", "#17221c", "#5a2a12"))
    long = chance.uniform(30, 44)
    return (
        _legs(chance, roots=(-18, -6, 8), reach=30, width=3.4)
        + '<path class="l" d="M-4-40Q-12-52-24-54M4-40Q12-52 24-54" stroke-width="2.200"/>'
        f'<ellipse cy="6" rx="22" ry="{long:.0f}" fill="{colour}"/>'
        f'<path d="M-16-18Q0-46 16-18Q0-12-16-18Z" fill="{colour}" stroke="#000" stroke-opacity=".4"/>'
        f'<ellipse cy="-36" rx="9" ry="7" fill="{colour}"/>'
        f'<path d="M0-15V{6 + long:.0f}M-18-15Q0-10 18-15" stroke="#000" stroke-opacity=".55" '
        'stroke-width="2" fill="none"/><ellipse cx="-8" cy="-2" rx="4.5" ry="12" fill="#fff" '
        'fill-opacity=".2" transform="rotate(8)"/><ellipse cx="9" cy="-2" rx="2.5" ry="9" fill="#fff" fill-opacity=".1"/>'
    )


def _speck(chance: Random) -> str:
    """A thrips or a springtail: too small for more."""
    return (
        f'<ellipse class="b" rx="4.5" ry="{chance.uniform(9, 17):.0f}"/><circle class="b" cy="-13" r="4"/>'
        '<path class="l" d="M-2-16L-7-24M2-16L7-24M-4-4L-10-7M4-4L10-7M-4 4L-10 8M4 4L10 8" '
        'stroke-width="1.5"/>'
    )


def _legs(chance: Random, *, roots: tuple[float, ...], reach: float, width: float) -> str:
    """A pair of bent legs at each root; the front ones point forward, the hind ones back."""
    path = ""
    for index, root in enumerate(roots):
        slope = (index - (len(roots) - 1) / 2) * 0.75
        for side in (-1, 1):
            tilt = slope + chance.gauss(0, 0.22)
            knee_x, knee_y = side * reach * 0.62, root + reach * 0.62 * (tilt - 0.25)
            foot_x = side * reach * chance.uniform(0.85, 1.12)
            foot_y = knee_y + reach * (0.55 * tilt + chance.uniform(0.05, 0.35))
            path += f"M{side * 6} {root:.0f}L{knee_x:.0f} {knee_y:.0f}L{foot_x:.0f} {foot_y:.0f}"
    return f'<path class="l" d="{path}" stroke-width="{width}"/>'


def _wing(angle: float, *, y: float, length: float, breadth: float) -> str:
    """A glassy wing hinged at 0, y; at angle 0 it lies back along the body."""
    b, e = breadth, length
    return (
        f'<g transform="translate(0 {y:.0f}) rotate({-angle:.0f})"><path class="w" '
        f'd="M0 0C{b * 0.9:.0f} {e * 0.15:.0f} {b:.0f} {e * 0.75:.0f} {b * 0.35:.0f} {e:.0f}'
        f'C{-b * 0.25:.0f} {e * 1.02:.0f} {-b * 0.75:.0f} {e * 0.5:.0f} 0 0Z"/>'
        f'<path class="v" d="M0 0Q{b * 0.5:.0f} {e * 0.5:.0f} {b * 0.3:.0f} {e:.0f}'
        f"M0 0Q{b * 0.05:.0f} {e * 0.5:.0f} {b * 0.05:.0f} {e:.0f}"
        f'M{b * 0.42:.0f} {e * 0.4:.0f}L0 {e * 0.52:.0f}"/></g>'
    )
