# SPDX-License-Identifier: Apache-2.0
"""Which of the inputs that a batch knows is which of those that it has now.

A list may be rendered in another order by a retry, after a clear, or when a task comes back from a
deferral, and may have lost or gained inputs. An input is recognized by its fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence


def match(
    known: Sequence[str],
    ranks: Sequence[int],
    now: Sequence[str],
    places: Sequence[int] = (),
) -> list[int | None]:
    """Return for each input of now the index of the known one that it is; None for a new one.

    :param known: fingerprints of the inputs that the batch knows.
    :param ranks: of equal inputs of which there are fewer now, those of lower rank are kept.
    :param now: fingerprints of the inputs in their order now.
    :param places: the index of the known input that stood at each place of an earlier list, empty
        where that says nothing. An input that is not recognized, such as one that tells the
        time, is taken for the one at its place, if that is not recognized elsewhere and the list
        is as long as before.
    """
    matched: list[int | None] = [None] * len(now)
    places_of: dict[str, list[int]] = {}
    for place, fingerprint in enumerate(now):
        places_of.setdefault(fingerprint, []).append(place)
    indexes_of: dict[str, list[int]] = {}
    for index, fingerprint in enumerate(known):
        indexes_of.setdefault(fingerprint, []).append(index)
    for fingerprint, there in places_of.items():
        equal = sorted(indexes_of.get(fingerprint, ()), key=lambda index: ranks[index])
        for place, index in zip(there, sorted(equal[: len(there)]), strict=False):
            matched[place] = index
    if len(places) == len(now):
        taken = set(matched)
        for place, at_place in enumerate(places):
            if matched[place] is None and at_place not in taken:
                matched[place] = at_place
    return matched
