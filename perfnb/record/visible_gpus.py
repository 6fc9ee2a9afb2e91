"""Which GPUs a process may use: those of the driver that CUDA_VISIBLE_DEVICES names, which NVML itself does not heed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Found:
    """One GPU of the driver.

    Attributes
    ----------
    index
        Its number, as the driver counts.
    uuid
        What it is known by; None where the driver does not tell.
    handle
        NVML's handle; None where the driver gives none.
    memory_handle
        The handle of which memory is asked: of the MIG instance, if one is named.
    reason
        Why there is no handle.
    """

    index: int
    uuid: str | None
    handle: Any
    memory_handle: Any
    reason: str = ""


def all_found(nvml: Any) -> list[Found]:
    """All GPUs of the driver, those that do not answer too.

    Raises
    ------
    pynvml.NVMLError
        If the driver does not say how many there are.
    """
    return [_found(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]


def chosen(nvml: Any, found: Sequence[Found], environment: Mapping[str, str]) -> list[Found]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order; all where it is not set or cannot be resolved.

    A number counts GPUs in CUDA's order, which is the driver's where all GPUs are alike or CUDA_DEVICE_ORDER says so. As for
    CUDA, the first name that is none ends the list, and an empty list means no GPU.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(found)
    names = [name.strip() for name in visible.split(",")]
    if names[0] in ("", "-1", "NoDevFiles"):
        return []
    picked: list[Found] = []
    for name in names:
        if name.isdecimal() and not _counts_as_driver(nvml, found, environment):
            return list(found)
        one = _named(nvml, name, found)
        if one is None:
            break
        picked.append(one)
    return picked or list(found)


def _found(nvml: Any, index: int) -> Found:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        return Found(index, nvml.nvmlDeviceGetUUID(handle), handle, handle)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_UNINITIALIZED:
            raise
        return Found(index, None, None, None, str(error))


def _named(nvml: Any, name: str, found: Sequence[Found]) -> Found | None:
    if name.isdecimal():
        return found[int(name)] if int(name) < len(found) else None
    if name.startswith("GPU-"):
        matching = [one for one in found if one.uuid is not None and one.uuid.startswith(name)]  # CUDA takes its beginning
        return matching[0] if len(matching) == 1 else None
    return _instance(nvml, name, found) if name.startswith("MIG-") else None


def _instance(nvml: Any, name: str, found: Sequence[Found]) -> Found | None:
    try:
        instance = nvml.nvmlDeviceGetHandleByUUID(name)
        whole = nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance))
    except nvml.NVMLError:
        return None
    return next((replace(one, uuid=name, memory_handle=instance) for one in found if one.uuid == whole), None)


def _counts_as_driver(nvml: Any, found: Sequence[Found], environment: Mapping[str, str]) -> bool:
    if environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return True
    try:
        return len({nvml.nvmlDeviceGetName(one.handle) for one in found if one.handle is not None}) <= 1
    except nvml.NVMLError:
        return False
