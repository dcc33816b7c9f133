"""Paths that end in an act, such as `/v1/alert-rules/{key}:enable`.

A `{key:word}` in a path takes anything but slashes and colons: so that the path of the thing itself does not take
those of its acts, and the wrong method there is answered with 405 and the methods that there are.
"""

from starlette.convertors import Convertor, register_url_convertor

WORD = "word"


class WordConvertor(Convertor[str]):
    """A piece of a path without a colon."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor(WORD, WordConvertor())
