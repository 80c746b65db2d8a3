# SPDX-License-Identifier: Apache-2.0
"""The release labels of a prompt template or a workflow, some of which may be protected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping


class Labels:
    """Release labels and the numbers of the versions that they lead to.

    Whoever asks to move a protected label only makes a request, which waits until it is approved. A
    later request takes its place.
    """

    def __init__(
        self,
        numbers: Mapping[str, int],
        new_id: Callable[[str], int],
        protected: Iterable[str] = (),
    ) -> None:
        self._new_id = new_id
        self.ids = {label: new_id(label) for label in numbers}
        self.numbers = dict(numbers)
        self.requested: dict[str, int] = {}
        self.protected = set(protected)

    def at(self, number: int) -> list[str]:
        """Return the labels that lead to a version."""
        return [label for label, its_number in self.numbers.items() if its_number == number]

    def ask_to_move(self, label: str, number: int) -> None:
        """Do what a request by HTTP does: a protected label stays where it is."""
        if label in self.protected:
            self.requested[label] = number
        else:
            self.move(label, number)

    def move(self, label: str, number: int) -> None:
        """Have a label lead to a version; create it if there is none."""
        if label not in self.ids:
            self.ids[label] = self._new_id(label)
        self.numbers[label] = number
        self.requested.pop(label, None)

    def approve(self, label: str) -> None:
        """Grant the request to move a label; ``LookupError`` if there is none."""
        if label not in self.requested:
            raise LookupError(f"no request to move the label {label!r} waits for approval")
        self.move(label, self.requested[label])
