"""Who is told what happens: the terminal, MLflow, TensorBoard."""
