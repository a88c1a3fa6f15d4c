"""Virtual worlds: the whole control plane with fake nodes, seeded, in a time that jumps.

Here belong the world itself, the faults it can suffer, the properties it must keep whatever
happens, random histories and scenarios. What users of the test kit call is in ``sampan.testing``.
"""
