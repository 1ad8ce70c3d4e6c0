from tests.gateway.held import eager

__all__ = ["eager"]
