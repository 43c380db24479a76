"""The deployment in force, as the daemon and a single run keep it: by the settings that are in force."""

import logging

from trapsync.catalog.deployments import Deployment
from trapsync.errors import CatalogError
from trapsync.remote.in_force import InForce
from trapsync.runtime.context import Context
from trapsync.settings.deployment import terms

log = logging.getLogger(__name__)


class DeploymentKeeper:
    """Begins a deployment where the settings are of another place or plan. Any thread may call it.

    Not by settings on trial, which may be rolled back: `commit` says that they are not.
    """

    def __init__(self, context: Context, found: InForce) -> None:
        self._deployments = context.catalog.deployments
        self._device = context.device
        self._terms = terms(context.settings)
        self._has_camera = context.settings.camera.kind != "none"
        self._is_trial = found.is_trial
        self._known = self._deployments.current()
        self._is_settled = self._deployments.is_settled()

    def begin(self) -> None:
        """At a start. Where the catalog has no deployment, those in the images may not be known yet: see `settle`."""
        if self._is_settled and not self._is_trial:
            self._note(self._deployments.keep(self._device, self._terms))

    def settle(self) -> None:
        """All that was in the spool is in the catalog: see that there is a deployment, if there is a camera."""
        if self._is_settled or not self._has_camera:
            return
        self._note(self._deployments.settle(self._device, self._terms))
        self._is_settled = True

    def commit(self) -> None:
        """The settings were on trial, and stay."""
        self._is_trial = False
        try:
            self.begin()
        except CatalogError as error:  # the next start sees to it
            log.error("%s", error)

    def current_id(self) -> str:
        """The id of the deployment in force, for a picture; empty where there is none."""
        try:
            return self._deployments.current_id() or ""
        except CatalogError as error:  # which must not cost a picture
            log.error("%s", error)
            return ""

    def _note(self, now: Deployment | None) -> None:
        if now and (self._known is None or now.id != self._known.id):
            log.warning("the deployment %s is in force", now.id)
        self._known = now
