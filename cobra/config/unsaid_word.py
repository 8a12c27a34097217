"""A subcommand that need not be said, because what follows the verb tells: `cobra eval MODEL`."""

from collections.abc import Container


def with_word(command: list[str], verb: str, unsaid: str, words: Container[str]) -> list[str]:
    """The words behind `cobra`, with `unsaid` where `verb` is followed by none of its subcommands."""
    if command[:1] != [verb] or command[1:2] in ([], ["-h"], ["--help"]) or command[1] in words:
        return command
    return [verb, unsaid, *command[1:]]
