"""The gateway: forward only a SuperLink's Fleet API, so that devices get in and nobody else does.

Flower serves devices and operators on one port, and checks keys only on the Fleet API. Anyone who
reaches that port can register a node or start a run, that is, run any code on all devices. So the
SuperLink listens on the loopback address, and this program on the address that devices reach. It
also bounds what a device may send, counts what each device pays, and holds a device's question for
work until there is some. Of libraries it needs only what flwr installs.
"""
