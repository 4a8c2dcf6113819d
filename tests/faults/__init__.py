"""Seeded faults in scans, configurations, files, gadgets and networks, and what each host makes of them.

    python -m tests.faults --cases 10000 --seed 1

sound: the scan without faults. stream, inside, files: faults. hosts: a case through one host. judge: classes of
outcomes. work: cases in a process of their own, with bounds on time, memory and files.
"""
