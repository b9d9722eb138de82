"""The MLP, its blend with a closed-form head, evaluation, prediction."""
