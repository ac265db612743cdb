"""What proves who is who between the machines of a cluster: certificates, join tokens, and the folder that holds them.

Every program of a cluster uses it, so it knows none of them. `core/` decides and does nothing else. Only `workshop.py`
imports `cryptography`, and only in a process of its own (`errands.py`): it costs 12 MB and 50 ms.
"""
