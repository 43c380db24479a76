"""Which pages there are."""

from typing import TYPE_CHECKING

from trapsync.hub.pages.devices import DevicesPages
from trapsync.hub.pages.downloads import Downloads
from trapsync.hub.pages.fleet import FleetPage
from trapsync.hub.pages.frame import ADMINS, EVERYBODY, READERS, Page
from trapsync.hub.pages.login import LoginPages
from trapsync.hub.pages.map import MapPage
from trapsync.hub.pages.night import NightPage
from trapsync.hub.pages.pictures import Pictures
from trapsync.hub.pages.trap import TrapPage

if TYPE_CHECKING:
    from trapsync.hub.app import Hub


def pages(hub: "Hub") -> list[Page]:
    """All pages of a hub. `<name>` in a rule is an argument of its view."""
    login, pictures, fleet = LoginPages(hub), Pictures(hub), FleetPage(hub)
    trap, night, downloads = TrapPage(hub), NightPage(hub), Downloads(hub)
    where, devices = MapPage(hub), DevicesPages(hub)
    return [
        Page("GET", "/login", EVERYBODY, login.show),
        Page("POST", "/login", EVERYBODY, login.log_in),
        Page("POST", "/logout", READERS, login.log_out),
        Page("GET", "/picture/<size>/<name>", READERS, pictures.send, is_part=True),
        Page("GET", "/", READERS, fleet.show),
        Page("GET", "/trap/<device>", READERS, trap.show),
        Page("GET", "/trap/<device>/settings.toml", ADMINS, trap.settings),
        Page("GET", "/trap/<device>/<night>", READERS, night.show),
        Page("GET", "/trap/<device>/<night>/images.zip", READERS, downloads.images),
        Page("GET", "/trap/<device>/<night>/camtrap-dp.zip", READERS, downloads.camtrap_dp),
        Page("GET", "/map", READERS, where.show),
        Page("GET", "/devices", ADMINS, devices.show),
        Page("POST", "/devices/invite", ADMINS, devices.invite),
        Page("POST", "/devices/codes/<int(max=1000000000):number>/withdraw", ADMINS, devices.withdraw),
        Page("GET", "/devices/<device>", ADMINS, devices.show_one),
        Page("POST", "/devices/<device>/groups", ADMINS, devices.regroup),
        Page("GET", "/devices/<device>/<how>", ADMINS, devices.ask),
        Page("POST", "/devices/<device>/<how>", ADMINS, devices.end),
    ]
