"""Which neurons a client trains; cut them out of the model; put them back. Pure numpy."""
