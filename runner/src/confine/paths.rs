//! The parts of /proc and /sys that are hidden or read-only.

/// Hidden below /proc: files behind the null device, directories behind an empty tmpfs.
pub(crate) const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// Read-only below /proc.
pub(crate) const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Hidden below /sys.
pub(crate) const MASKED_SYS: [&str; 3] = ["firmware", "devices/virtual/powercap", "kernel/security"];
