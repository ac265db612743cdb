"""What this machine is in a cluster: an instance of the control plane, a node, or both.

    check ─► certificate ─► /etc/orch/*.yaml ─► service

Two rules. Whatever can be known beforehand is checked before anything is changed. And each step finds done what an
earlier try has done, so that the remedy of everything that breaks off is to say the same command again.
"""
