//! Limits on what goes to and comes from block devices.

/// What of a device's traffic is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Bytes read a second.
    ReadBytes,
    /// Bytes written a second.
    WriteBytes,
    /// Reads a second.
    Reads,
    /// Writes a second.
    Writes,
}

/// A limit for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// The device's major and minor number.
    pub device: (u32, u32),
    /// What is limited.
    pub traffic: Traffic,
    /// So much a second; not zero.
    pub rate: u64,
}
