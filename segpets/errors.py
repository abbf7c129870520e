"""The one exception for what a user can mend."""


class UserError(Exception):
    """Something that the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 1.
    """
