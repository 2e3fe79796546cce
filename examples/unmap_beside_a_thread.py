"""Maps, touches and unmaps on one CPU while a second thread computes on another: a program to record."""

import hashlib
import mmap
import os
import threading

first, second, *_ = [*sorted(os.sched_getaffinity(0)), 0]
done = threading.Event()


def compute():
    """Keep the second CPU busy; hashing runs without the interpreter's lock, and long, since each round begins with it."""
    os.sched_setaffinity(0, {second})
    data = bytes(1 << 26)
    while not done.is_set():
        hashlib.sha256(data).digest()


thread = threading.Thread(target=compute)
thread.start()
os.sched_setaffinity(0, {first})
for _ in range(2000):
    area = mmap.mmap(-1, 16 * mmap.PAGESIZE)
    for page in range(16):
        area[page * mmap.PAGESIZE] = 1
    area.close()
done.set()
thread.join()
