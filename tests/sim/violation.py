"""What the rules raise."""


class Violation(AssertionError):  # noqa: N818 - named after what happened
    """The rule `rule` was broken; the text says where."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
