"""A process's set-up as a value: a list of system calls that a few bytes of machine code execute, one after another.

A process that Python forks takes a private copy of each page of the interpreter that it touches, and touches most of
them: of a container's start that is the larger half. A process that shares its parent's memory until its `exec` takes
no copy, but must not run Python in it. So whoever makes a container decides everything beforehand, in Python, and
writes down what remains to be done inside: `steps` is the list, `machine` executes it, docs/decisions/0009 tells more.
"""
