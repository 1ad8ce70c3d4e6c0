"""The same ten rounds in other systems, each by its public interface: what runs in their environments."""
