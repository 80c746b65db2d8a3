# SPDX-License-Identifier: Apache-2.0
"""What PromptLayer's API means, as pure code.

Nothing in here imports Airflow, opens a socket, reads a clock or sleeps. Builders turn arguments
into a :class:`~.http.Request`, parsers turn a :class:`~.http.Response` into a typed result or an
exception, and :mod:`~.waiting` decides what to do next, given the time. Every mode of waiting
goes through here, so an answer means the same in all of them.
"""
