"""The MLP, the fixed head inside it, training in numpy, evaluation, prediction."""
