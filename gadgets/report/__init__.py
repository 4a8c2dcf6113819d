"""`replay --report`: one page on a scan and its images, which needs no network and no other file.

looks: what the gadgets of a chain know, seen from beside it while it runs. pictures: arrays as pictures inside the
page. compared: the images of several chains side by side. facts: texts on the scan, its images and the software. page:
all of it in HTML (page.html).
"""
