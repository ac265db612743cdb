"""The verbs of `orchctl image`, one a module; `group` holds their table."""
