"""A stage: where deployed versions run. Its two kinds are processes of this machine, and pods of a Kubernetes."""

from collections.abc import Callable
from typing import Protocol

from modelyard_serving.endpoints import Deployment

Shown = Callable[[Deployment], None]  # writes down what runs now, and comes back when the gateway knows it


class Stage(Protocol):
    """What deploying needs of a place. New before old: what answers goes only once something else answers."""

    def deploy(self, before: Deployment | None, wanted: Deployment, replicas: int | None, shown: Shown) -> Deployment:
        """Have a version run with so many replicas; gives it as it runs.

        Args:
            before: what runs under its name.
            replicas: as many as there are by default, and one of what is new.

        Raises:
            Unavailable: a new replica did not come up, and why; nothing was changed.
        """

    def up(self, deployment: Deployment) -> tuple[str, ...]:
        """The replicas that answer now, and as the version that they should be."""

    def stop(self, deployment: Deployment) -> None:
        """End all of it; what is being answered is answered first."""
