"""From settings to the parts that a command or the daemon puts together: routes, handlers, decoder, letter box."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence

from consumer.dead_letters.letter import Writer
from consumer.decoding import Decoder
from consumer.dispatch import Route
from consumer.errors import ConsumerError, SettingsError, place_of
from consumer.handler import extend_path, load_handler
from consumer.kafka.letters import LetterBox
from consumer.routing import compile_match
from consumer.settings.sections import LOG_EVERYTHING, Settings
from schemas.session import Session
from schemas.wire import TwoSpellings


def make_routes(settings: Settings, environment: Mapping[str, str]) -> list[Route]:
    """Import every handler and compile every match; raise SettingsError for the first that is wrong."""
    extend_path(settings.path, sys.path)
    routes = []
    for index, each in enumerate(settings.routes or [LOG_EVERYTHING]):
        where = f"routes[{index}] ({each.name})"
        matches = compile_match(Session, each.match, where)
        routes.append(Route(each.name, matches, load_handler(each, where, environment), each.tombstones))
    return routes


def make_decoder(settings: Settings) -> Decoder:
    """Make the decoder of session events."""
    spellings = TwoSpellings(Session)
    return Decoder(spellings.first, spellings.both, settings.delivery.max_record_bytes)


async def enter_handlers(routes: Sequence[Route], opened: contextlib.AsyncExitStack) -> None:
    """Enter every handler that is a context manager; raise SettingsError naming the route of the first that fails."""
    for route in routes:
        if route.handler.context is not None:
            try:
                await opened.enter_async_context(route.handler.context)
            except Exception as error:
                why = (
                    str(error) if isinstance(error, ConsumerError) else f"entering the handler raised {place_of(error)}"
                )
                raise SettingsError(f"routes ({route.name}): {why}") from error


def make_letter_box(settings: Settings) -> LetterBox | None:
    """Make what writes dead letters; None when ``dead_letter.topic`` is empty."""
    if not settings.dead_letter.topic:
        return None
    return LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id))
