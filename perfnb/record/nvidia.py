"""NVIDIA devices of this machine, asked of the driver's own library (NVML), without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as its driver describes it.

    Attributes
    ----------
    name
        Product name.
    memory_bytes
        Total memory.
    is_split
        Whether it is split into MIG instances, for which the driver gives no utilisation.
    """

    name: str
    memory_bytes: int
    is_split: bool


@dataclass(frozen=True, slots=True)
class NoDevices:
    """No NVIDIA device can be seen, and why."""

    reason: str


def devices() -> tuple[Device, ...] | NoDevices:
    """The NVIDIA devices in the order of their numbers, or why none can be seen; never raises.

    Returns
    -------
    tuple of Device, or NoDevices
        At least one device, else the reason.

    Examples
    --------
    >>> found = devices()
    >>> isinstance(found, NoDevices) or all(device.memory_bytes > 0 for device in found)
    True
    """
    try:
        import pynvml  # noqa: PLC0415 - only where it is used: a machine without it can still read files
    except ImportError:
        return NoDevices("the package nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return NoDevices(str(error))
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        found = tuple(
            Device(
                name=_text(pynvml.nvmlDeviceGetName(handle)),
                memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                is_split=_is_split(handle),
            )
            for handle in handles
        )
    except pynvml.NVMLError as error:
        return NoDevices(str(error))
    finally:
        pynvml.nvmlShutdown()
    return found or NoDevices("the driver knows of no device")


def _is_split(handle: object) -> bool:
    import pynvml  # noqa: PLC0415 - see devices()

    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # a device that has no such mode
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name  # bytes up to nvidia-ml-py 11
