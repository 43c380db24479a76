"""[project]: what only people know about the study, for packages of the exchange standard Camtrap DP.

The words are those of its profile 1.0.2 (https://camtrap-dp.tdwg.org/metadata). Nothing of it is asked for until a
package is written.
"""

import difflib

from trapsync.settings.table import Table, require_address

SAMPLING_DESIGNS = (
    *("simpleRandom", "systematicRandom", "clusteredRandom"),
    *("experimental", "targeted", "opportunistic"),
)
ROLES = ("contact", "principalInvestigator", "rightsHolder", "publisher", "contributor")
# Names of licences as Data Packages have them (https://licenses.opendefinition.org), of those that are for data or pictures.
LICENSES = (
    *("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0"),
    *("CC-BY-NC-ND-4.0", "ODC-BY-1.0", "ODC-PDDL-1.0", "ODbL-1.0"),
)


def _require_word(key: str, word: str, known: tuple[str, ...], other: str = "") -> None:
    """Refuse a word that is none of those known; the text names the one that is most like it."""
    if word in known:
        return
    near = difflib.get_close_matches(word.replace(" ", "-"), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}{other}"
    raise ValueError(f"{key}: there is no {word!r}; {hint}")


class Contributor(Table, frozen=True):
    """[[project.contributors]]: a person or an organisation."""

    title: str
    role: str = "contributor"
    email: str = ""
    organization: str = ""
    website: str = ""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if not self.title.strip():
            raise ValueError("title: is empty; it is the name of the person or organisation")
        _require_word("role", self.role, ROLES)
        if self.website:
            require_address("website", self.website, "https://orcid.org/0000-0002-1825-0097")


class Project(Table, frozen=True):
    """[project]: the study that the pictures belong to."""

    title: str = ""
    acronym: str = ""
    description: str = ""
    website: str = ""
    sampling_design: str = ""
    contributors: tuple[Contributor, ...] = ()
    data_license: str = ""
    media_license: str = ""
    media_public: bool = False
    citation: str = ""
    taxa: dict[str, str] = {}  # noqa: RUF012 - msgspec makes a new one each time

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if self.website:
            require_address("website", self.website, "https://moths.example.org")
        if self.sampling_design:
            _require_word("sampling_design", self.sampling_design, SAMPLING_DESIGNS)
        for key in ("data_license", "media_license"):
            license_ = getattr(self, key)
            if license_ and not license_.startswith(("https://", "http://")):
                _require_word(key, license_, LICENSES, ', or the address of one: "https://…"')
        if empty := [label for label, name in self.taxa.items() if not name.strip()]:
            raise ValueError(f"taxa: {empty[0]!r} has no name")

    @property
    def missing(self) -> list[str]:
        """The keys without which there is no valid package."""
        needed = ["title", "sampling_design", "contributors"]
        if self.data_license or self.media_license:  # the standard wants both or none
            needed += ["data_license", "media_license"]
        return [f"project.{key}" for key in needed if not getattr(self, key)]
