"""Everything that crosses the network: the protocol, layouts, codecs, the client mod, measured size."""
