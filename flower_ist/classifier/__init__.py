"""The MLP, the ridge head inside it, training in numpy, evaluation, prediction."""
