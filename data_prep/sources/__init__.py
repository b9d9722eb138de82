"""Where images come from: folder, table, hub, torchvision, arrays."""
