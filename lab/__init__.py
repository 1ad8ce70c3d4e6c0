"""What only the makers of featherfed run: benchmarks, faults and comparisons. No part of what is installed."""
