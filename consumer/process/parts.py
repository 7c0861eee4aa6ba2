"""From settings to the parts that a command or the daemon puts together: routes, handlers, decoder, letter box."""

from __future__ import annotations

from consumer.dead_letters.letter import Writer
from consumer.delivery.decoding import Decoder
from consumer.kafka.letter_box import LetterBox
from consumer.settings.sections import Settings
from schemas.session import Session
from schemas.wire import TwoSpellings


def make_decoder(settings: Settings) -> Decoder:
    """Make the decoder of session events."""
    spellings = TwoSpellings(Session)
    return Decoder(spellings.first, spellings.both, settings.delivery.max_record_bytes)


def make_letter_box(settings: Settings) -> LetterBox | None:
    """Make what writes dead letters; None when ``dead_letter.topic`` is empty."""
    if not settings.dead_letter.topic:
        return None
    return LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id))
