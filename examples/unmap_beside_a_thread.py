"""Maps, touches and unmaps while a second thread computes: a program to record."""

import hashlib
import mmap
import threading

done = threading.Event()


def compute():
    """Keep another CPU busy; hashing needs no lock of the interpreter, so that it runs beside the rest."""
    data = bytes(1 << 20)
    while not done.is_set():
        hashlib.sha256(data).digest()


thread = threading.Thread(target=compute)
thread.start()
for _ in range(2000):
    area = mmap.mmap(-1, 16 * mmap.PAGESIZE)
    for page in range(16):
        area[page * mmap.PAGESIZE] = 1
    area.close()
done.set()
thread.join()
