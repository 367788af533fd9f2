"""The sizes of machines that come with the product, as data."""

from deployments.clusters.models import Family, Sku

THIS_MACHINE = "this machine"
DEFAULT = "Standard_D3_v2"

# name, vCPU, GiB
_CPU = (
    ("Standard_D2_v2", 2, 7),
    ("Standard_D3_v2", 4, 14),
    ("Standard_D4_v2", 8, 28),
    ("Standard_D5_v2", 16, 56),
    ("Standard_D11_v2", 2, 14),
    ("Standard_D12_v2", 4, 28),
    ("Standard_D13_v2", 8, 56),
    ("Standard_D2s_v3", 2, 8),
    ("Standard_D4s_v3", 4, 16),
    ("Standard_D8s_v3", 8, 32),
    ("Standard_D16s_v3", 16, 64),
    ("Standard_F2s_v2", 2, 4),
    ("Standard_F4s_v2", 4, 8),
    ("Standard_F8s_v2", 8, 16),
    ("Standard_F16s_v2", 16, 32),
)
# name, vCPU, GiB, accelerator, how many
_GPU = (
    ("Standard_NC6", 6, 56, "NVIDIA Tesla K80", 1),
    ("Standard_NC6s_v2", 6, 112, "NVIDIA Tesla P100", 1),
    ("Standard_NC6s_v3", 6, 112, "NVIDIA Tesla V100", 1),
    ("Standard_NC12s_v3", 12, 224, "NVIDIA Tesla V100", 2),
    ("Standard_NC24s_v3", 24, 448, "NVIDIA Tesla V100", 4),
    ("Standard_NC4as_T4_v3", 4, 28, "NVIDIA Tesla T4", 1),
    ("Standard_NC8as_T4_v3", 8, 56, "NVIDIA Tesla T4", 1),
    ("Standard_NC24ads_A100_v4", 24, 220, "NVIDIA A100", 1),
    ("Standard_ND6s", 6, 112, "NVIDIA Tesla P40", 1),
    ("Standard_ND40rs_v2", 40, 672, "NVIDIA Tesla V100", 8),
)
_FPGA = (
    ("Standard_PB6s", 6, 84, "Intel Arria 10", 1, "microsoft.com/fpga"),
    ("Standard_NP10s", 10, 168, "Xilinx Alveo U250", 1, "amd.com/xilinx_u250"),
    ("Standard_NP20s", 20, 336, "Xilinx Alveo U250", 2, "amd.com/xilinx_u250"),
    ("Standard_NP40s", 40, 672, "Xilinx Alveo U250", 4, "amd.com/xilinx_u250"),
)
# Other providers' sizes for inference: provider, then name, vCPU, GiB.
_OTHER_CPU = {
    "AWS": (
        ("m5.large", 2, 8),
        ("m5.xlarge", 4, 16),
        ("m5.2xlarge", 8, 32),
        ("m5.4xlarge", 16, 64),
        ("c5.large", 2, 4),
        ("c5.xlarge", 4, 8),
        ("c5.2xlarge", 8, 16),
        ("c5.4xlarge", 16, 32),
        ("r5.large", 2, 16),
        ("r5.xlarge", 4, 32),
        ("r5.2xlarge", 8, 64),
    ),
    "Google": (
        ("e2-standard-2", 2, 8),
        ("e2-standard-4", 4, 16),
        ("e2-standard-8", 8, 32),
        ("e2-standard-16", 16, 64),
        ("n2-standard-4", 4, 16),
        ("n2-standard-8", 8, 32),
        ("n2-standard-16", 16, 64),
        ("n2-highcpu-8", 8, 8),
        ("n2-highmem-4", 4, 32),
    ),
    "Own": (
        ("plain-2x8", 2, 8),
        ("plain-4x16", 4, 16),
        ("plain-8x32", 8, 32),
        ("plain-16x64", 16, 64),
    ),
}
_OTHER_GPU = {
    "AWS": (
        ("g4dn.xlarge", 4, 16, "NVIDIA Tesla T4", 1),
        ("g4dn.2xlarge", 8, 32, "NVIDIA Tesla T4", 1),
        ("g4dn.12xlarge", 48, 192, "NVIDIA Tesla T4", 4),
        ("g5.xlarge", 4, 16, "NVIDIA A10G", 1),
        ("g5.2xlarge", 8, 32, "NVIDIA A10G", 1),
        ("p3.2xlarge", 8, 61, "NVIDIA Tesla V100", 1),
        ("p3.8xlarge", 32, 244, "NVIDIA Tesla V100", 4),
        ("p4d.24xlarge", 96, 1152, "NVIDIA A100", 8),
    ),
    "Google": (
        ("g2-standard-4", 4, 16, "NVIDIA L4", 1),
        ("g2-standard-12", 12, 48, "NVIDIA L4", 1),
        ("g2-standard-24", 24, 96, "NVIDIA L4", 2),
        ("a2-highgpu-1g", 12, 85, "NVIDIA A100", 1),
        ("a2-highgpu-2g", 24, 170, "NVIDIA A100", 2),
        ("a2-highgpu-8g", 96, 680, "NVIDIA A100", 8),
    ),
    "Own": (("plain-8x32-gpu", 8, 32, "NVIDIA GPU", 1),),
}


def rows() -> list[dict[str, object]]:
    """Every size as the fields of its row."""
    found: list[dict[str, object]] = [
        {"name": THIS_MACHINE, "family": Family.CPU.value, "provider": "Own"}
    ]
    for name, vcpu, memory in _CPU:
        found.append(_row(name, Family.CPU, vcpu, memory))
    for name, vcpu, memory, accelerator, count in _GPU:
        found.append(
            _row(name, Family.GPU, vcpu, memory)
            | {
                "accelerator": accelerator,
                "accelerators": count,
                "resource_name": "nvidia.com/gpu",
            }
        )
    for provider, sizes in _OTHER_CPU.items():
        for name, vcpu, memory in sizes:
            found.append(_row(name, Family.CPU, vcpu, memory) | {"provider": provider})
    for provider, with_gpus in _OTHER_GPU.items():
        for name, vcpu, memory, accelerator, count in with_gpus:
            found.append(
                _row(name, Family.GPU, vcpu, memory)
                | {
                    "provider": provider,
                    "accelerator": accelerator,
                    "accelerators": count,
                    "resource_name": "nvidia.com/gpu",
                }
            )
    for name, vcpu, memory, accelerator, count, resource in _FPGA:
        found.append(
            _row(name, Family.FPGA, vcpu, memory)
            | {"accelerator": accelerator, "accelerators": count, "resource_name": resource}
        )
    return found


def _row(name: str, family: Family, vcpu: int, memory_gb: int) -> dict[str, object]:
    return {"name": name, "family": family.value, "vcpu": vcpu, "memory_gb": float(memory_gb)}


def ensure_skus(model: type[Sku] = Sku) -> int:
    """Make the rows that are missing; what an administrator changed stays. Returns how many.

    A migration passes its own historical `model`.
    """
    known = set(model.objects.values_list("name", flat=True))
    missing = [model(**row) for row in rows() if row["name"] not in known]
    model.objects.bulk_create(missing, ignore_conflicts=True)
    return len(missing)
