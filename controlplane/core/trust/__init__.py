"""Who may do what, who may join, and how a root is exchanged: functions of values."""
