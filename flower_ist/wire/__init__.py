"""Everything that crosses the network: protocol, layouts, codecs, the client mod, sizes."""
