"""What knows a gradient: models, data, partitions, local training and evaluation."""
