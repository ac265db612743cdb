"""What to say of an exception group: the first error in it, since the others were cancelled or failed because of it."""


def first(error: BaseException) -> BaseException:
    """The innermost first error; the error itself when it is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
