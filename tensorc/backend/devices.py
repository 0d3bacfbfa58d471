"""The device that functions are made for."""

from tensorc.runtime.devices import device

__all__ = ["device"]
