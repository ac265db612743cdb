"""Identities, tokens, what a certificate says, and when it is renewed: functions of values."""
