"""supervisord with a shorter turn: what died is started again within a tenth of a second.

supervisord's loop sleeps for up to a second, which nothing sets, and takes two turns to start what died.
"""

from supervisor import poller, supervisord

TURN_S = 0.05


class _Prompt(poller.Poller):  # type: ignore[misc]
    def poll(self, timeout: float) -> tuple[list[int], list[int]]:
        ready: tuple[list[int], list[int]] = super().poll(min(timeout, TURN_S))
        return ready


if __name__ == "__main__":
    poller.Poller = _Prompt
    supervisord.main()
