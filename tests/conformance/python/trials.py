"""How a module says which of its functions are tests, and of which operations."""


def test(function):
    """A test by itself."""
    function.is_test = True
    return function


def where(applies):
    """A test of an operation, of those operations only of which there is something to test."""

    def mark(function):
        function.applies = applies
        return function

    return mark


def always(_):
    return True
