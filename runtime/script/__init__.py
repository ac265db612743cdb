"""A process's set-up as a value: a list of system calls that a few bytes of machine code execute, one after another.

A process that Python forks takes a private copy of each page of the interpreter that it touches, and touches most of
them: of a container's start that is the larger half. A process that shares its parent's memory until its `exec` takes
no copy, but must not run Python in it. So whoever makes a container decides everything beforehand, in Python, and
writes down what remains to be done inside.

    plain      which containers can be made so
    outside    what is looked up, made and opened beforehand
    start      the first process as a list of system calls
    steps      how such a list is written down
    machine    the memory that it is in, and what executes it
    ask        a short list that asks a namespace for its mappings

docs/decisions/0010 tells what was measured, and refused.
"""
