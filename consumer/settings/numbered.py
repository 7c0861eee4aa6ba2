"""Settings of one worker of several: what N processes on one machine cannot share gets the worker's number."""

from __future__ import annotations

import msgspec

from consumer.errors import SettingsError
from consumer.settings.checks import check_relations
from consumer.settings.sections import Settings

MAX_WORKERS = 64


def numbered(settings: Settings, worker: int) -> Settings:
    """Return the settings of a worker: ``http.port`` + its number, and a ``group_instance_id`` that ends in it.

    A port of 0 stays, because it stands for any free port. The options of handlers are numbered when they are made:
    only their annotations say which of them are files of one process. Number 0 stands for a process without workers.
    """
    if not worker:
        return settings
    http, kafka = settings.http, settings.kafka
    if http.port:
        http = msgspec.structs.replace(http, port=http.port + worker)
    if kafka.group_instance_id:
        kafka = msgspec.structs.replace(kafka, group_instance_id=f"{kafka.group_instance_id}-{worker}")
    return msgspec.structs.replace(settings, http=http, kafka=kafka)


def require_numbers(settings: Settings, workers: int) -> None:
    """Raise SettingsError if a worker's settings are not allowed."""
    try:
        check_relations(numbered(settings, workers))
    except SettingsError as error:
        raise SettingsError(f"--workers {workers}: of worker {workers}, {error}") from error
