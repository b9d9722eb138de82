"""An image set: decoding, checking, class names."""
